module github.com/aegis-oci/aegis-oci/test/interop

go 1.26.0

require github.com/aegis-oci/aegis-oci v0.0.0

require (
	github.com/gofrs/flock v0.13.2 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/aegis-oci/aegis-oci => ../..
