package sip

// Is says whether the header field has that name, in any case or in its compact form.
func (h Header) Is(name string) bool { return sameName(h.Name, name) }
