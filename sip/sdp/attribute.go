package sdp

// Attribute returns the value of the first attribute of a name that the i-th media
// description has of its own, "" for one without a value, and whether it is there.
func (d *Description) Attribute(i int, name string) (string, bool) {
	if i < 0 || i >= len(d.parts) {
		return "", false
	}
	s := d.parts[i]
	for _, l := range d.lines[s.from:s.to] {
		if typ, value := d.field(l); typ == 'a' {
			if n, v := attribute(value); n == name {
				return v, true
			}
		}
	}
	return "", false
}
