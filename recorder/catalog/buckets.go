package catalog

import (
	"fmt"
	"math"
	"slices"
)

// Durations fall into classes, a quarter of an octave each, and keys into spans
// of hours of several lengths. Both are terms, so that a search in order of duration or
// time reads of the index of terms what belongs to a few classes or spans alone.

const (
	classesPerOctave = 4
	classesMax       = 66 // of up to 18 hours and more

	hourUS         = 3600 * 1_000_000
	hoursFactor    = 8       // of the lengths of spans: 1, 8, 64, 512 and 4096 hours
	hourLevels     = 5       // of lengths
	hourZero       = 1 << 22 // makes hours before 1970 positive
	hourAlternates = 64      // that a search names at most
)

// classLeast[i] is the least duration of class i+1, in milliseconds.
var classLeast = func() (least [classesMax - 1]int64) {
	for i := range least {
		least[i] = int64(math.Round(1000 * math.Exp2(float64(i)/classesPerOctave)))
	}
	return least
}()

// classOf is the class of a duration.
func classOf(ms int64) int64 {
	i, there := slices.BinarySearch(classLeast[:], ms)
	if there {
		i++
	}
	return int64(i)
}

// classStart is the least duration of a class, in milliseconds.
func classStart(class int64) int64 {
	switch {
	case class <= 0:
		return math.MinInt64
	case class > int64(len(classLeast)):
		return math.MaxInt64
	}
	return classLeast[class-1]
}

func classValue(class int64) string { return fmt.Sprintf("%02d", class) }

// classes matches classes in [from, to).
func classes(from, to int64) match {
	var m match
	for c := from; c < to; c++ {
		m.or = append(m.or, term(termClass, classValue(c)))
	}
	return m
}

// timeTerms are those of a key: one of each length of spans.
func timeTerms(key int64) []string {
	out := make([]string, 0, hourLevels)
	hour := floorDiv(key, hourUS) + hourZero
	for level := range hourLevels {
		out = append(out, timeTerm(level, hour))
		hour /= hoursFactor
	}
	return out
}

// timeTerm of a span; n counts those of its length.
func timeTerm(level int, n int64) string {
	return fmt.Sprintf("%c%d%x", termTime, level, n)
}

// spansOf are the terms of spans that hold all keys in [from, to), and others of the same
// hours; nil when they are too many.
func spansOf(from, to int64) []string {
	at, end := floorDiv(from, hourUS)+hourZero, floorDiv(to-1, hourUS)+hourZero+1
	var out []string
	for at < end {
		level, length := 0, int64(1)
		for level+1 < hourLevels && at%(length*hoursFactor) == 0 && at+length*hoursFactor <= end {
			level, length = level+1, length*hoursFactor
		}
		if out = append(out, timeTerm(level, at/length)); len(out) > hourAlternates {
			return nil
		}
		at += length
	}
	return out
}

// spansAround are the terms of at most so many spans that hold all keys in [from, to), and
// as few others as that allows; nil when they would hold about everything.
func spansAround(from, to int64, most int) []string {
	if out := spansOf(from, to); len(out) > 0 && len(out) <= most {
		return out
	}
	first, last := floorDiv(from, hourUS)+hourZero, floorDiv(to-1, hourUS)+hourZero
	for level := range hourLevels {
		if last-first < int64(most) {
			var out []string
			for n := first; n <= last; n++ {
				out = append(out, timeTerm(level, n))
			}
			return out
		}
		first, last = first/hoursFactor, last/hoursFactor
	}
	return nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
