package kernel

import "github.com/cilium/ebpf"

// Program lets tests run the program on frames of theirs.
func (e *Engine) Program() *ebpf.Program { return e.obj.program }
