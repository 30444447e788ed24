//go:build peers

// Package peers keeps the dependencies of crictl and critest in go.mod; nothing compiles it.
package peers

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
