package picture

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// Layout of the picture, in pixels.
const (
	pngWidth      = 1280
	marginLeft    = 90
	marginRight   = 20
	headerHeight  = 56
	laneHeight    = 150
	laneGap       = 14
	footerHeight  = 64
	waveWidth     = pngWidth - marginLeft - marginRight
	labelRowsMax  = 4
	legendSquare  = 10
	hatchDistance = 6
)

var (
	paper   = color.RGBA{255, 255, 255, 255}
	ink     = color.RGBA{40, 40, 48, 255}
	faint   = color.RGBA{225, 227, 232, 255}
	shading = color.RGBA{255, 224, 178, 255}
	label   = color.RGBA{150, 82, 0, 255}
	hatch   = color.RGBA{200, 30, 45, 255}
	colours = [2]color.RGBA{{0, 98, 155, 255}, {20, 130, 70, 255}} // external, internal
)

// PNG draws a recording as a picture: a waveform per channel on the axis of
// real time, suppressed windows shaded and named, gaps hatched.
func PNG(w io.Writer, m *recorder.Manifest, p Peaks) error {
	n := channels(m)
	bottom := headerHeight + n*laneHeight + max(n-1, 0)*laneGap
	c := &canvas{image.NewRGBA(image.Rect(0, 0, pngWidth, bottom+footerHeight))}
	c.fill(c.Bounds(), paper)
	t := newTimeline(m)
	c.header(m)
	for ch := range n {
		top := headerHeight + ch*(laneHeight+laneGap)
		c.lane(m, t, p, ch, top)
	}
	c.windows(m, t, n)
	c.axis(t, bottom)
	c.legend(m, t, bottom+footerHeight-20, n)
	if err := png.Encode(w, c); err != nil {
		return fmt.Errorf("encode the picture: %w", err)
	}
	return nil
}

type canvas struct{ *image.RGBA }

func (c *canvas) fill(r image.Rectangle, col color.Color) {
	draw.Draw(c.RGBA, r, image.NewUniform(col), image.Point{}, draw.Src)
}

// x is the pixel of a moment.
func (t timeline) x(realMS int64) int { return marginLeft + int(realMS*waveWidth/t.realMS) }

func (c *canvas) header(m *recorder.Manifest) {
	c.text(marginLeft, 14, m.ID, ink)
	second := fmt.Sprintf("%s  %s  %s to %s", m.Trunk, m.Call.Direction, m.Call.From, m.Call.To)
	c.text(marginLeft, 32, fit(second, waveWidth-260), ink)
	third := fmt.Sprintf("real %s  audio %s", Clock(m.RealMS, true), Clock(m.AudioMS, true))
	c.text(pngWidth-marginRight-textWidth(third), 32, third, ink)
	date := m.Origin.UTC().Format(time.RFC3339)
	c.text(pngWidth-marginRight-textWidth(date), 14, date, ink)
}

// lane draws one channel.
func (c *canvas) lane(m *recorder.Manifest, t timeline, p Peaks, ch, top int) {
	middle := top + laneHeight/2
	c.fill(image.Rect(marginLeft, top, marginLeft+waveWidth, top+laneHeight), color.RGBA{248, 249, 251, 255})
	for _, s := range t.shades[ch] {
		c.fill(image.Rect(t.x(s.from), top, max(t.x(s.to), t.x(s.from)+1), top+laneHeight), shading)
	}
	c.fill(image.Rect(marginLeft, middle, marginLeft+waveWidth, middle+1), faint)
	for i, peak := range t.columns(p, ch, waveWidth) {
		if t.suppressed(ch, t.realMS*int64(2*i+1)/(2*waveWidth)) {
			continue
		}
		const half = laneHeight/2 - 4
		up, down := int(peak.Max)*half/32768, int(peak.Min)*half/32768
		c.fill(image.Rect(marginLeft+i, middle-up, marginLeft+i+1, middle-down+1), colours[ch])
	}
	for _, g := range m.Gaps {
		if g.Channel == ch {
			c.hatched(image.Rect(t.x(g.RealMS), top, max(t.x(g.RealMS+g.DurationMS), t.x(g.RealMS)+2), top+laneHeight))
		}
	}
	c.text(8, middle-4, m.Channels[ch].Side, colours[ch])
}

// hatched draws diagonal lines over a rectangle.
func (c *canvas) hatched(r image.Rectangle) {
	r = r.Intersect(image.Rect(marginLeft, 0, marginLeft+waveWidth, c.Bounds().Dy()))
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if (x+y)%hatchDistance == 0 {
				c.Set(x, y, hatch)
			}
		}
	}
}

// windows names each window at the top of the first lane that it lies in, a row
// lower where names would run into each other, and draws its edges.
func (c *canvas) windows(m *recorder.Manifest, t timeline, n int) {
	var free [2][labelRowsMax]int
	for _, w := range sorted(m.Windows) {
		first, last := 0, n-1
		if w.Channel != nil {
			first, last = *w.Channel, *w.Channel
		}
		if first < 0 || last >= n || last < first {
			continue
		}
		top := headerHeight + first*(laneHeight+laneGap)
		bottom := headerHeight + last*(laneHeight+laneGap) + laneHeight
		x, end := t.x(w.RealMS), t.x(min(w.EndRealMS, t.realMS))
		for _, edge := range []int{x, max(x, end-1)} {
			c.fill(image.Rect(edge, top, edge+1, bottom), label)
		}
		at := min(x+4, pngWidth-marginRight-textWidth(w.Reason))
		for row := range free[first] {
			if free[first][row] <= at {
				c.text(at, top+4+12*row, w.Reason, label)
				free[first][row] = at + textWidth(w.Reason) + 6
				break
			}
		}
	}
}

func (c *canvas) axis(t timeline, y int) {
	c.fill(image.Rect(marginLeft, y+4, marginLeft+waveWidth, y+5), ink)
	free := 0
	for _, k := range ticks(t.realMS, 16) {
		x := t.x(k.realMS)
		c.fill(image.Rect(x, y+4, x+1, y+9), ink)
		at := min(max(x-textWidth(k.label)/2, marginLeft), pngWidth-marginRight-textWidth(k.label))
		if at >= free {
			c.text(at, y+13, k.label, ink)
			free = at + textWidth(k.label) + 8
		}
	}
}

func (c *canvas) legend(m *recorder.Manifest, t timeline, y, n int) {
	x := marginLeft
	entry := func(name string, mark func(image.Rectangle)) {
		r := image.Rect(x, y, x+legendSquare, y+legendSquare)
		mark(r)
		c.text(x+legendSquare+6, y+2, name, ink)
		x += legendSquare + 24 + textWidth(name)
	}
	for ch := range n {
		entry(fmt.Sprintf("channel %d: %s", ch, m.Channels[ch].Side), func(r image.Rectangle) { c.fill(r, colours[ch]) })
	}
	if t.shaded(n) {
		entry("suppressed", func(r image.Rectangle) { c.fill(r, shading) })
	}
	if len(m.Gaps) > 0 {
		entry("not captured", c.hatched)
	}
}
