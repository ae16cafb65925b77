package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// curve is a line of a plot.
type curve struct {
	name   string
	points [][2]float64 // ascending in x; all above zero
}

// panel is a plot with two logarithmic axes.
type panel struct {
	title, x, y string
	curves      []curve
}

const (
	panelWidth  = 520
	panelHeight = 360
	marginLeft  = 60
	marginTop   = 34
	marginBelow = 46
	legendLine  = 18
)

// colours of the curves, told apart by those who see red and green alike too.
var colours = []string{"#555555", "#0072b2", "#56b4e9", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#000000", "#999933", "#882255"}

// svg draws panels beside each other, with one legend for all below them.
func svg(panels []panel) string {
	var names []string
	for _, p := range panels {
		for _, c := range p.curves {
			if !slices.Contains(names, c.name) {
				names = append(names, c.name)
			}
		}
	}
	width, height := panelWidth*max(1, len(panels)), panelHeight+legendLine*((len(names)+1)/2)+10
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d 0)">`+"\n", i*panelWidth)
		p.draw(&b, names)
		b.WriteString("</g>\n")
	}
	for i, n := range names {
		x, y := marginLeft+i%2*(width/2), panelHeight+legendLine*(i/2)+8
		fmt.Fprintf(&b, `<path d="M%d %dh24" stroke="%s" stroke-width="2"/><text x="%d" y="%d">%s</text>`+"\n",
			x, y, colours[i%len(colours)], x+30, y+4, html.EscapeString(n))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// axis maps values to places by their logarithm, from a round value to a round one.
type axis struct{ low, high, from, to float64 }

func newAxis(values []float64, from, to float64) axis {
	a := axis{low: math.Inf(1), high: math.Inf(-1), from: from, to: to}
	for _, v := range values {
		a.low, a.high = min(a.low, v), max(a.high, v)
	}
	if len(values) == 0 {
		a.low, a.high = 1, 10
	}
	a.low, a.high = math.Pow(10, math.Floor(math.Log10(a.low))), math.Pow(10, math.Ceil(math.Log10(a.high)))
	if a.low == a.high {
		a.high *= 10
	}
	return a
}

func (a axis) place(v float64) float64 {
	return a.from + (a.to-a.from)*(math.Log10(v)-math.Log10(a.low))/(math.Log10(a.high)-math.Log10(a.low))
}

// ticks are 1, 2 and 5 in each power of ten.
func (a axis) ticks() (out []float64) {
	for decade := a.low; decade < a.high*1.001; decade *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v := m * decade; v <= a.high*1.001 {
				out = append(out, v)
			}
		}
	}
	return out
}

func (p panel) draw(b *strings.Builder, names []string) {
	var xs, ys []float64
	for _, c := range p.curves {
		for _, at := range c.points {
			xs, ys = append(xs, at[0]), append(ys, at[1])
		}
	}
	x := newAxis(xs, marginLeft, panelWidth-16)
	y := newAxis(ys, panelHeight-marginBelow, marginTop)
	fmt.Fprintf(b, `<text x="%d" y="20" font-weight="bold">%s</text>`+"\n", marginLeft, html.EscapeString(p.title))
	for _, v := range x.ticks() {
		fmt.Fprintf(b, `<path d="M%.1f %dV%d" stroke="#e5e5e5"/><text x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n",
			x.place(v), marginTop, panelHeight-marginBelow, x.place(v), panelHeight-marginBelow+16, v)
	}
	for _, v := range y.ticks() {
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#e5e5e5"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n",
			marginLeft, y.place(v), panelWidth-16, marginLeft-5, y.place(v)+4, v)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (marginLeft+panelWidth-16)/2, panelHeight-marginBelow+34, html.EscapeString(p.x))
	fmt.Fprintf(b, `<text transform="translate(13 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", panelHeight/2, html.EscapeString(p.y))
	for _, c := range p.curves {
		colour := colours[slices.Index(names, c.name)%len(colours)]
		var path strings.Builder
		for i, at := range c.points {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], x.place(at[0]), y.place(at[1]))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x.place(at[0]), y.place(at[1]), colour)
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), colour)
	}
}

// plot draws CPU time and latency over the number of calls.
func (r *report) plot() string {
	cpu := panel{title: "CPU time per relayed packet", x: "calls", y: "µs"}
	latency := panel{title: "Latency added, p99", x: "calls", y: "µs"}
	index := map[string]int{}
	for _, w := range r.rows() {
		name := w.subject.String()
		i, ok := index[name]
		if !ok {
			i = len(index)
			index[name] = i
			cpu.curves, latency.curves = append(cpu.curves, curve{name: name}), append(latency.curves, curve{name: name})
		}
		add := func(c *curve, v, least float64) {
			c.points = append(c.points, [2]float64{float64(w.calls), max(v, least)})
		}
		add(&cpu.curves[i], w.busy.Median, 0.1)
		add(&latency.curves[i], w.p99.Median, 1)
	}
	return svg([]panel{cpu, latency})
}
