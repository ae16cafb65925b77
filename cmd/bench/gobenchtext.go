package main

import (
	"strconv"
	"strings"
)

// goBenchmark is one line of go test -bench.
type goBenchmark struct {
	Package string             `json:"package"`
	Name    string             `json:"name"` // without Benchmark and the number of processors
	Values  map[string]float64 `json:"values"`
}

// parseGoBenchmarks reads the output of go test -bench.
func parseGoBenchmarks(text string) (out []goBenchmark) {
	var pkg string
	for line := range strings.Lines(text) {
		if p, ok := strings.CutPrefix(line, "pkg: "); ok {
			pkg = strings.TrimPrefix(strings.TrimSpace(p), "github.com/trunktap/trunktap/")
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 || len(f)%2 != 0 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		b := goBenchmark{Package: pkg, Name: name, Values: map[string]float64{}}
		for i := 2; i < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				break
			}
			b.Values[f[i+1]] = v
		}
		out = append(out, b)
	}
	return out
}
