package quality

// gmin is how many packets must arrive in a row to end a burst (RFC 3611
// section 4.7.2).
const gmin = 16

// bursts is the account of RFC 3611 section 4.7.2: packets in the four states
// of the model of its appendix A.2. Where the appendix estimates the lengths
// from the transitions between states, they are counted here.
type bursts struct {
	gapReceived   uint64 // state 1
	burstReceived uint64 // state 2
	burstMissing  uint64 // state 3
	gapMissing    uint64 // state 4: alone among gmin received on either side
	bursts        uint64
	gaps          uint64
	inGap         bool // the last state was 1 or 4

	// The last packets, which may turn out to be of a gap or of a burst.
	openReceived uint64 // received between missing ones that are less than gmin apart
	openMissing  uint64
	tail         uint64 // received since the last missing one

	// Runs of missing packets without any received one between them.
	missingAll uint64
	runs       uint64
}

func (b *bursts) received() { b.tail++ }

// missing takes n packets in a row that were lost or discarded.
func (b *bursts) missing(n uint64) {
	if n == 0 {
		return
	}
	if b.tail > 0 || b.missingAll == 0 {
		b.runs++
	}
	b.missingAll += n
	if b.openMissing == 0 || b.tail >= gmin {
		b.close()
		b.openMissing, b.openReceived = n, 0
		return
	}
	b.openReceived += b.tail
	b.openMissing += n
	b.tail = 0
}

// close decides what the open packets were. A stream counts as being preceded
// and followed by gmin received packets.
func (b *bursts) close() {
	switch b.openMissing {
	case 0:
	case 1:
		b.gap()
		b.gapMissing++
	default:
		b.bursts++
		b.burstMissing += b.openMissing
		b.burstReceived += b.openReceived
		b.inGap = false
	}
	if b.tail > 0 {
		b.gap()
		b.gapReceived += b.tail
	}
	b.openMissing, b.openReceived, b.tail = 0, 0, 0
}

func (b *bursts) gap() {
	if !b.inGap {
		b.gaps++
	}
	b.inGap = true
}

// ratio is BurstR of ITU-T G.107 clause 3.5: the mean length of a run of
// missing packets, to what it would be were they independent. 1 is random loss.
func (b *bursts) ratio(missingShare float64) float64 {
	if b.runs == 0 {
		return 1
	}
	return max(1, float64(b.missingAll)/float64(b.runs)*(1-missingShare))
}
