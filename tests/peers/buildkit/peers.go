//go:build peers

// Package peers keeps the dependencies of BuildKit in go.mod; nothing compiles it.
package peers

import (
	_ "github.com/moby/buildkit/cmd/buildctl"
	_ "github.com/moby/buildkit/cmd/buildkitd"
)
