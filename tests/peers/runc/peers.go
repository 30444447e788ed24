//go:build peers

// Package peers keeps the dependencies of runc in go.mod; nothing compiles it.
package peers

import (
	_ "github.com/opencontainers/runc"
)
