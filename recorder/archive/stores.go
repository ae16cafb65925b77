package archive

import "github.com/trunktap/trunktap/recorder"

// Stores returns the stores by their names; empty is that of the one without.
func (a *Archive) Stores() map[string]recorder.Store {
	out := make(map[string]recorder.Store, len(a.shelves))
	for _, s := range a.shelves {
		out[s.name] = s.store
	}
	return out
}
