package kernel

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Program lets tests run the program on frames of theirs.
func (e *Engine) Program() *ebpf.Program { return e.obj.program }

// Die ends the engine as the end of its process would, but for what is pinned or
// belongs to nobody.
func (e *Engine) Die() {
	if e.halt() {
		clear(e.at.on)
		e.discard()
	}
}

// ChooseHook takes the engine's program off and attaches it to lo where tcx
// answers with an error, and takes it off again.
func ChooseHook(e *Engine, asked Hook, refused error) (Hook, error) {
	for index := range e.at.on {
		_ = e.at.drop(index)
	}
	a, err := newAttachments(e.obj.program, e.nl, &Config{Hook: asked}, "")
	if err != nil {
		return "", err
	}
	defer a.leave()
	if refused != nil {
		a.tcx = func(link.TCXOptions) (link.Link, error) { return nil, refused }
	}
	err = a.attach(network{index: 1, name: "lo"})
	return a.hook, err
}
