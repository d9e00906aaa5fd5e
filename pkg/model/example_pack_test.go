// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"

	"github.com/aegis-oci/aegis-oci/pkg/model"
)

// A directory becomes these bytes, whoever packs it and whenever.
func ExamplePack() {
	packed, err := model.Pack(context.Background(), []string{"testdata/pack/tiny"}, model.PackOptions{
		Name:    "tiny",
		Version: "1.0",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(packed.Subject())
	var indented bytes.Buffer
	if err := json.Indent(&indented, packed.Manifest(), "", "  "); err != nil {
		log.Fatal(err)
	}
	fmt.Println(&indented)
	fmt.Printf("%s\n", packed.Config())
	// Output:
	// sha256:037bd98b6fb0173e89a43a3b949eab99a3f2e17c1e033a9d23fc7400a6c80ac8
	// {
	//   "schemaVersion": 2,
	//   "mediaType": "application/vnd.oci.image.manifest.v1+json",
	//   "artifactType": "application/vnd.cncf.model.manifest.v1+json",
	//   "config": {
	//     "mediaType": "application/vnd.cncf.model.config.v1+json",
	//     "digest": "sha256:b991106a7bc1cf78573e2c81b561e69d915f95295a744687f65dcc0a70f0a8e7",
	//     "size": 452
	//   },
	//   "layers": [
	//     {
	//       "mediaType": "application/vnd.cncf.model.doc.v1.raw",
	//       "digest": "sha256:6aaf90937004cc009af24924b6950b160ad83eda00aca9682b4041a964bc36bd",
	//       "size": 35,
	//       "annotations": {
	//         "org.cncf.model.file.mediatype.untested": "false",
	//         "org.cncf.model.file.metadata+json": "{\"name\":\"README.md\",\"mode\":420,\"uid\":0,\"gid\":0,\"size\":35,\"mtime\":\"1970-01-01T00:00:00Z\",\"typeflag\":0}",
	//         "org.cncf.model.filepath": "README.md",
	//         "org.opencontainers.image.title": "README.md"
	//       }
	//     },
	//     {
	//       "mediaType": "application/vnd.cncf.model.weight.config.v1.raw",
	//       "digest": "sha256:248fa0e131e93204c56c298228aa0445569fc8e41ee33de0c53eabb13a631ba9",
	//       "size": 52,
	//       "annotations": {
	//         "org.cncf.model.file.mediatype.untested": "false",
	//         "org.cncf.model.file.metadata+json": "{\"name\":\"config.json\",\"mode\":420,\"uid\":0,\"gid\":0,\"size\":52,\"mtime\":\"1970-01-01T00:00:00Z\",\"typeflag\":0}",
	//         "org.cncf.model.filepath": "config.json",
	//         "org.opencontainers.image.title": "config.json"
	//       }
	//     },
	//     {
	//       "mediaType": "application/vnd.cncf.model.weight.v1.raw",
	//       "digest": "sha256:cd30bad81818576edbe43e9d8959ef8ab20a1bae44daab2ab0feb92c006b2ea5",
	//       "size": 8079,
	//       "annotations": {
	//         "org.cncf.model.file.mediatype.untested": "false",
	//         "org.cncf.model.file.metadata+json": "{\"name\":\"model.safetensors\",\"mode\":420,\"uid\":0,\"gid\":0,\"size\":8079,\"mtime\":\"1970-01-01T00:00:00Z\",\"typeflag\":0}",
	//         "org.cncf.model.filepath": "model.safetensors",
	//         "org.opencontainers.image.title": "model.safetensors"
	//       }
	//     }
	//   ],
	//   "annotations": {
	//     "org.opencontainers.image.licenses": "Apache-2.0",
	//     "org.opencontainers.image.title": "tiny",
	//     "org.opencontainers.image.version": "1.0"
	//   }
	// }
	// {"descriptor":{"family":"bert","name":"tiny","version":"1.0","licenses":["Apache-2.0"]},"modelfs":{"type":"layers","diffIds":["sha256:6aaf90937004cc009af24924b6950b160ad83eda00aca9682b4041a964bc36bd","sha256:248fa0e131e93204c56c298228aa0445569fc8e41ee33de0c53eabb13a631ba9","sha256:cd30bad81818576edbe43e9d8959ef8ab20a1bae44daab2ab0feb92c006b2ea5"]},"config":{"architecture":"transformer","format":"safetensors","paramSize":"2K","precision":"float32"}}
}
