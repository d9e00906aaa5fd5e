module github.com/aegis-oci/aegis-oci/test/wycheproof

go 1.26.4

require (
	github.com/aegis-oci/aegis-oci v0.0.0
	github.com/c2sp/wycheproof v0.0.0-20260902155932-3fa63dd0344a
)

require (
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	golang.org/x/crypto v0.57.0 // indirect
)

replace github.com/aegis-oci/aegis-oci => ../..
