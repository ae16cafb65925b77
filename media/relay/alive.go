package relay

// Alive returns when every goroutine that moves packets has come by. It never returns
// when one hangs.
func (r *Relay) Alive() {
	if e, ok := r.engine.(interface{ alive() }); ok {
		e.alive()
	}
}
