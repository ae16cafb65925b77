package level

import "math"

// Mono mixes two channels to one. Each keeps its level: on a telephone one
// party speaks at a time, and halving would make both quiet. Where both are
// loud at once the sum bends softly, above kneeDB, towards full scale and never
// clips.
//
// dst, a and b have one length; dst may be a or b.
func Mono(dst, a, b []int16) {
	b, dst = b[:len(a)], dst[:len(a)]
	for i, v := range a {
		dst[i] = soft(int32(v) + int32(b[i]))
	}
}

const (
	kneeDB = -3.0
	full   = math.MaxInt16
)

// knee is where sums begin to bend; room is what is left above it.
var (
	knee = int32(full * ratio(kneeDB))
	room = full - knee
)

// soft is the identity up to the knee; above it the excess e becomes
// room*e/(room+e), which goes on at the same slope and ends below full scale.
func soft(v int32) int16 {
	switch {
	case v > knee:
		e := int64(v - knee)
		v = knee + int32(int64(room)*e/(int64(room)+e))
	case v < -knee:
		e := int64(-v - knee)
		v = -knee - int32(int64(room)*e/(int64(room)+e))
	}
	return int16(v)
}
