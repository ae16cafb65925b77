package siprec

import "errors"

// errDraining says that a session was refused because the server waits for its last one.
var errDraining = errors.New("the daemon waits for its last recording session")

// Drain refuses new recording sessions from now on, with 503 and Retry-After. Those that
// are going on stay, until Dialogs tells that none is left; a further dialog of one of
// them is taken, for without it half of a call would be missing.
func (s *Server) Drain() { s.draining.Store(true) }
