package picture

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/trunktap/trunktap/recorder"
)

// Terminal bounds of a picture, in cells.
const (
	columnsMin = 40
	columnsMax = 400
	rowsEach   = 3 // of one channel
	nameWidth  = 10
)

var eighths = []rune(" ▁▂▃▄▅▆▇█")

const (
	shade   = '░' // suppressed
	missing = '╳' // filled, not captured
)

// sorted returns windows in order of their time.
func sorted(w []recorder.Window) []recorder.Window {
	return slices.SortedFunc(slices.Values(w), func(a, b recorder.Window) int {
		return cmp.Or(cmp.Compare(a.RealMS, b.RealMS), cmp.Compare(a.EndRealMS, b.EndRealMS))
	})
}

// Terminal draws a recording in the given number of columns: for each channel
// rows of block characters on a logarithmic scale of 48 dB, below them the
// axis of real time and a line that names the windows.
func Terminal(m *recorder.Manifest, p Peaks, columns int) string {
	width := min(max(columns, columnsMin), columnsMax) - nameWidth
	t := newTimeline(m)
	var b strings.Builder
	for ch := range channels(m) {
		levels := t.columns(p, ch, width)
		for row := range rowsEach {
			name := ""
			if row == rowsEach/2 {
				name = m.Channels[ch].Side
			}
			fmt.Fprintf(&b, "%-*s", nameWidth, name)
			for i, peak := range levels {
				b.WriteRune(cell(m, t, ch, i, width, peak, rowsEach-1-row))
			}
			b.WriteByte('\n')
		}
	}
	axis(&b, t, width)
	names(&b, m, t, width)
	if t.shaded(channels(m)) || len(m.Gaps) > 0 {
		fmt.Fprintf(&b, "%*s%c suppressed  %c not captured\n", nameWidth, "", shade, missing)
	}
	return b.String()
}

// channels is how many channels there are to draw.
func channels(m *recorder.Manifest) int { return min(len(m.Channels), 2) }

// cell is one character; row 0 is the lowest of its channel.
func cell(m *recorder.Manifest, t timeline, ch, i, width int, peak Peak, row int) rune {
	middle := t.realMS * int64(2*i+1) / int64(2*width)
	if t.suppressed(ch, middle) {
		return shade
	}
	from, to := t.realMS*int64(i)/int64(width), t.realMS*int64(i+1)/int64(width)
	for _, g := range m.Gaps {
		if row == 0 && g.Channel == ch && 2*overlap(from, to, g.RealMS, g.RealMS+g.DurationMS) >= max(to-from, 1) {
			return missing
		}
	}
	filled := int(math.Round(height(peak) * rowsEach * 8))
	return eighths[min(max(filled-8*row, 0), 8)]
}

func overlap(a, b, c, d int64) int64 { return min(b, d) - max(a, c) }

// height is the level from 0 at -48 dB to 1 at full scale.
func height(p Peak) float64 {
	const rangeDB = 48
	if p.Level() == 0 {
		return 0
	}
	return min(1, max(0, 1+20*math.Log10(p.Level())/rangeDB))
}

func axis(b *strings.Builder, t timeline, width int) {
	line := []rune(strings.Repeat("─", width))
	labels := []rune(strings.Repeat(" ", width))
	free := 0
	for _, k := range ticks(t.realMS, width/12) {
		x := int(k.realMS * int64(width) / t.realMS)
		if x >= width {
			break
		}
		line[x] = '┬'
		if x >= free && x+len(k.label) <= width {
			copy(labels[x:], []rune(k.label))
			free = x + len(k.label) + 1
		}
	}
	fmt.Fprintf(b, "%*s%s\n%*s%s\n", nameWidth, "", string(line), nameWidth, "", strings.TrimRight(string(labels), " "))
}

// names writes the reasons of windows below their beginnings, in as many lines
// as it takes.
func names(b *strings.Builder, m *recorder.Manifest, t timeline, width int) {
	const linesMax = 8
	var lines [][]rune
	for _, w := range sorted(m.Windows) {
		label := []rune("└" + w.Reason)
		x := min(int(w.RealMS*int64(width)/t.realMS), width-len(label))
		if x < 0 || w.EndRealMS <= w.RealMS {
			continue
		}
		at := slices.IndexFunc(lines, func(l []rune) bool { return len(l) <= x })
		if at < 0 {
			if len(lines) == linesMax {
				break
			}
			at, lines = len(lines), append(lines, nil)
		}
		lines[at] = append(lines[at], []rune(strings.Repeat(" ", x-len(lines[at])))...)
		lines[at] = append(append(lines[at], label...), ' ')
	}
	for _, l := range lines {
		fmt.Fprintf(b, "%*s%s\n", nameWidth, "", strings.TrimRight(string(l), " "))
	}
}
