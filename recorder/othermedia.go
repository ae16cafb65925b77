package recorder

import (
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
)

// othersMax bounds the spans of media that is not recorded, of one call.
const othersMax = 64

// otherSpan is media that is not recorded, while it was agreed. Times are the
// core's; to is negative while it goes on.
type otherSpan struct {
	media.OtherMedia
	from, to int64
}

// OtherMedia implements media.MediaTap.
func (s *session) OtherMedia(at time.Time, all []media.OtherMedia) {
	s.enqueue(control{at: at, kind: controlMedia, others: all})
}

// otherMedia takes what goes on from now on.
func (c *core) otherMedia(at time.Time, all []media.OtherMedia) {
	if c.ended {
		return
	}
	c.advance(c.ns(at))
	for i := range c.others {
		if o := &c.others[i]; o.to < 0 && !slices.Contains(all, o.OtherMedia) {
			o.to = c.now
		}
	}
	for _, m := range all {
		if slices.ContainsFunc(c.others, func(o otherSpan) bool { return o.to < 0 && o.OtherMedia == m }) {
			continue
		}
		if len(c.others) >= othersMax {
			c.refuse("unrecorded_media")
			continue
		}
		c.others = append(c.others, otherSpan{m, c.now, -1})
	}
	for _, r := range c.recs {
		r.account.dirty = true
	}
}

// unrecorded lists the media that is not recorded, as far as it falls into what is
// sealed of the recording.
func (r *recording) unrecorded() (out []UnrecordedMedia) {
	for _, o := range r.others() {
		from, to := max(r.realMSOf(o.from), 0), r.sealedMS
		if o.to >= 0 {
			to = min(to, r.realMSOf(o.to))
		}
		if from < to {
			out = append(out, UnrecordedMedia{Kind: o.Kind, Protocol: o.Proto, Formats: o.Formats, RealMS: from, EndRealMS: to})
		}
	}
	return out
}
