module github.com/aegis-oci/aegis-oci/test/bench

go 1.26.0
