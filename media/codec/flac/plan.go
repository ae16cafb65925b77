package flac

import (
	"math/bits"

	"github.com/mewkiz/flac/frame"
)

const (
	orderMax = 4
	riceMax  = 14 // 15 is an escape (RFC 9639 section 9.2.7)
)

// plan chooses how a channel of a frame is coded: as one value, or by the fixed
// predictor (RFC 9639 section 9.2.5) with the least residual. What neither makes
// smaller is left verbatim, for the encoder's own analysis, which tries
// everything and takes several times as long.
func plan(s *frame.Subframe) {
	s.SubHeader = frame.SubHeader{Pred: frame.PredVerbatim}
	if len(s.Samples) <= orderMax {
		return
	}
	order, sum, constant := bestOrder(s.Samples)
	if constant {
		s.Pred = frame.PredConstant
		return
	}
	n := uint64(len(s.Samples) - order)
	k := riceOf(sum, n)
	// A residual r is folded to 2|r| or 2|r|-1, so this is an upper bound.
	if cost := uint64(order)*16 + 2*sum>>k + n*(uint64(k)+1); cost >= uint64(len(s.Samples))*16 {
		return
	}
	s.Pred, s.Order = frame.PredFixed, order
	s.ResidualCodingMethod = frame.ResidualCodingMethodRice1
	s.RiceSubframe = &frame.RiceSubframe{Partitions: []frame.RicePartition{{Param: k}}}
}

// bestOrder returns the order of the least sum of magnitudes of residuals, that
// sum, and whether all samples are the same.
func bestOrder(samples []int32) (order int, sum uint64, constant bool) {
	var sums, heads [orderMax + 1]uint64 // compared are the sums over the same samples, behind the heads
	var last [orderMax]int32             // the last residual of each order
	constant = true
	for i, x := range samples {
		constant = constant && x == samples[0]
		r := x
		for o := range sums {
			switch {
			case i >= orderMax:
				sums[o] += uint64(max(r, -r))
			case i >= o:
				heads[o] += uint64(max(r, -r))
			}
			if o < orderMax {
				r, last[o] = r-last[o], r
			}
		}
	}
	for o, s := range sums {
		if s < sums[order] {
			order = o
		}
	}
	return order, sums[order] + heads[order], constant
}

// riceOf returns the Rice parameter for n residuals of this sum of magnitudes:
// about the logarithm of the folded mean times ln 2, which leaves the unary part a bit or two.
func riceOf(sum, n uint64) uint {
	mean := 2 * sum / n
	return uint(min(max(bits.Len64(mean*7/10)-1, 0), riceMax))
}
