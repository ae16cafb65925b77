package codec

// bitReader takes bits from the most significant one on.
type bitReader struct {
	b  []byte
	at int // bits taken
}

// take returns the next n bits, at most 32; behind the end there are zeros.
func (r *bitReader) take(n int) int {
	v := 0
	for range n {
		v <<= 1
		if i := r.at >> 3; i < len(r.b) {
			v |= int(r.b[i] >> (7 - r.at&7) & 1)
		}
		r.at++
	}
	return v
}
