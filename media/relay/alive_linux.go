package relay

// alive returns when every loop has finished what it was at.
func (e *userEngine) alive() {
	for _, l := range e.loops {
		l.settle()
	}
}
