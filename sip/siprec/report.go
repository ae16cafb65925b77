package siprec

import (
	"crypto/rand"
	"encoding/base64"
	"time"

	"github.com/trunktap/trunktap/media/report"
)

// reportEvery is how often streams that bring nothing are asked for their report
// (RFC 7866 section 8.1.1: the recorder uses RTCP as any receiver does).
const reportEvery = 2500 * time.Millisecond

// newCNAME is ours in one dialog: 96 random bits (RFC 7022 section 5).
func newCNAME() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // it never fails
	return base64.StdEncoding.EncodeToString(b)
}

// reports says how a line is reported on: by the clocks of what the client may send.
func (l *leg) reports(n *line) *report.Config {
	c := &report.Config{CNAME: l.cname}
	for _, f := range n.formats {
		if isAudio(f) && int(f.PayloadType) < len(c.Clock) && f.ClockRate > 0 {
			c.Clock[f.PayloadType] = int32(f.ClockRate)
		}
	}
	return c
}

// reportDue lets the dialog's streams report on what came, when they have not done
// so by themselves.
func (l *leg) reportDue(now time.Time) {
	if l.reportAt.IsZero() || now.Before(l.reportAt) {
		return
	}
	l.reportAt = now.Add(reportEvery)
	for _, n := range l.lines {
		if n.stream != nil {
			n.stream.Report(now)
		}
	}
}
