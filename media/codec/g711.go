package codec

// G.711 by tables that are built once from the definitions of ITU-T G.711
// (11/88); the encoders take the nearest level of the law's decision values.
var (
	muLawLinear = table(func(t *[256]int16) {
		for i := range t {
			t[i] = muLawDecode(byte(i))
		}
	})
	aLawLinear = table(func(t *[256]int16) {
		for i := range t {
			t[i] = aLawDecode(byte(i))
		}
	})
	linearMuLaw = table(func(t *[1 << 14]byte) { // by the upper 14 bits of a sample
		for i := range t {
			t[i] = muLawEncode(int(int16(i << 2)))
		}
	})
	linearALaw = table(func(t *[1 << 13]byte) { // by the upper 13 bits of a sample
		for i := range t {
			t[i] = aLawEncode(int(int16(i << 3)))
		}
	})
)

func table[T any](fill func(*T)) (t T) {
	fill(&t)
	return t
}

func muLawDecode(u byte) int16 {
	u = ^u
	t := (int16(u&0x0f)<<3 + 0x84) << (u >> 4 & 7)
	if u&0x80 != 0 {
		return 0x84 - t
	}
	return t - 0x84
}

// muLawEncode compresses a 14-bit sample given in the upper bits of 16.
func muLawEncode(pcm int) byte {
	const bias, clip = 0x21, 8159
	mask := byte(0xff)
	v := pcm >> 2
	if v < 0 {
		v, mask = ^v, 0x7f // one's complement, as the reference code of ITU-T G.191
	}
	v = min(v, clip) + bias
	segment := 0
	for limit := 0x3f; segment < 8 && v > limit; limit = limit<<1 | 1 {
		segment++
	}
	if segment >= 8 {
		return 0x7f ^ mask
	}
	return byte(segment<<4|v>>(segment+1)&0x0f) ^ mask
}

func aLawDecode(a byte) int16 {
	a ^= 0x55
	t := int16(a&0x0f) << 4
	switch segment := a >> 4 & 7; segment {
	case 0:
		t += 8
	default:
		t = (t + 0x108) << (segment - 1)
	}
	if a&0x80 != 0 {
		return t
	}
	return -t
}

// aLawEncode compresses a 13-bit sample given in the upper bits of 16.
func aLawEncode(pcm int) byte {
	mask := byte(0xd5)
	v := pcm >> 3
	if v < 0 {
		v, mask = ^v, 0x55
	}
	segment := 0
	for limit := 0x1f; segment < 8 && v > limit; limit = limit<<1 | 1 {
		segment++
	}
	if segment >= 8 {
		return 0x7f ^ mask
	}
	shift := max(segment, 1)
	return byte(segment<<4|v>>shift&0x0f) ^ mask
}

// MuLaw compresses one sample (G.711 μ-law).
func MuLaw(s int16) byte { return linearMuLaw[uint16(s)>>2] }

// ALaw compresses one sample (G.711 A-law).
func ALaw(s int16) byte { return linearALaw[uint16(s)>>3] }

// MuLawLinear expands one sample (G.711 μ-law).
func MuLawLinear(b byte) int16 { return muLawLinear[b] }

// ALawLinear expands one sample (G.711 A-law).
func ALawLinear(b byte) int16 { return aLawLinear[b] }
