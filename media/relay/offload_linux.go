package relay

import "github.com/trunktap/trunktap/media/relay/kernel"

// kernelOffload is the kernel engine as an offload.
type kernelOffload struct{ *kernel.Engine }

// Add hides the type of the flow.
func (k kernelOffload) Add(s kernel.Spec, sink kernel.Sink) (flow, error) {
	f, err := k.Engine.Add(s, sink)
	if err != nil {
		return nil, err // and no flow that is a nil in an interface
	}
	return f, nil
}

// Left tells of the flows that go on without an owner.
func (k kernelOffload) Left() []leftFlow {
	var out []leftFlow
	for _, l := range k.Engine.Left() {
		out = append(out, leftFlow{l.Spec, func(sink kernel.Sink) (flow, error) {
			f, err := k.Adopt(l, sink)
			if err != nil {
				return nil, err // and no flow that is a nil in an interface
			}
			return f, nil
		}})
	}
	return out
}

// openOffload starts the kernel engine. Flows that a process before left end, unless
// they are to be gone on with: see Config.Restore.
func openOffload(cfg Config) (o offload, attrs []any, err error) {
	c := cfg.Kernel
	c.PortMin, c.PortMax = cfg.PortMin, cfg.PortMax
	if c.Log == nil {
		c.Log = cfg.Log
	}
	e, err := kernel.Open(c)
	if err != nil {
		return nil, nil, err
	}
	attrs = []any{"hook", e.Hook(), "interfaces", e.Interfaces()}
	if left := e.Left(); len(left) > 0 {
		attrs = append(attrs, "flows_left", len(left))
	}
	if err := e.Pinned(); err != nil {
		attrs = append(attrs, "unpinned", err)
	} else {
		attrs = append(attrs, "pinned", c.PinDir)
	}
	if !cfg.Restore {
		e.Start()
	}
	return kernelOffload{e}, attrs, nil
}
