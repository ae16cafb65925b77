package config

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scalar is one value as the file has it.
type scalar struct {
	text string
	kind scalarKind
}

type scalarKind uint8

const (
	stringScalar scalarKind = iota
	intScalar
	floatScalar
	boolScalar
)

func (s scalar) String() string {
	const most = 60
	t := s.text
	if r := []rune(t); len(r) > most {
		t = string(r[:most]) + "…"
	}
	return strconv.Quote(t)
}

func boolean(target *bool) *node {
	return leaf(target, "true or false", map[string]any{"type": "boolean"}, func(s scalar) (bool, *wrong) {
		if s.kind != boolScalar {
			return false, wrongf("%v is no truth value", s)
		}
		return s.text == "true", nil
	})
}

func integer(target *int, least, most int) *node {
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	schema := map[string]any{"type": "integer", "minimum": least, "maximum": most}
	return leaf(target, want, schema, func(s scalar) (int, *wrong) {
		v, err := strconv.Atoi(s.text)
		if s.kind != intScalar || err != nil || strconv.Itoa(v) != s.text {
			return 0, wrongf("%v is no whole number in plain decimal digits", s)
		}
		if v < least || v > most {
			return 0, wrongf("%d is out of range", v)
		}
		return v, nil
	})
}

// oneOr0 is a whole number from least to most, or 0.
func oneOr0(target *int, least, most int) *node {
	want := fmt.Sprintf("a whole number from %d to %d, or 0", least, most)
	schema := map[string]any{"anyOf": []any{
		map[string]any{"const": 0}, map[string]any{"type": "integer", "minimum": least, "maximum": most},
	}}
	return leaf(target, want, schema, func(s scalar) (int, *wrong) {
		v, err := strconv.Atoi(s.text)
		switch {
		case s.kind != intScalar || err != nil || strconv.Itoa(v) != s.text:
			return 0, wrongf("%v is no whole number in plain decimal digits", s)
		case v != 0 && (v < least || v > most):
			return 0, wrongf("%d is out of range", v)
		}
		return v, nil
	})
}

// choice is one of some words; later names words of the contract that this
// version does not know yet.
func choice(target *string, words, later []string) *node {
	want := orList(words)
	return leaf(target, want, map[string]any{"enum": anys(words)}, func(s scalar) (string, *wrong) {
		switch {
		case s.kind != stringScalar:
			return "", wrongf("%v is no word", s)
		case slices.Contains(words, s.text):
			return s.text, nil
		case slices.Contains(later, s.text):
			return "", unsupported(s.String())
		case near(s.text, words) != "":
			return "", wrongf("%v is not known, did you mean %q?", s, near(s.text, words))
		}
		return "", wrongf("%v is not known", s)
	})
}

// sampleRates are those of recordings, in Hz.
var sampleRates = []string{"8000", "16000", "48000"}

// sampleRate is a rate, or auto, which is 0.
func sampleRate(target *int) *node {
	words := append([]string{"auto"}, sampleRates...)
	schema := map[string]any{"enum": []any{"auto", 8000, 16000, 48000}}
	return leaf(target, orList(words), schema, func(s scalar) (int, *wrong) {
		switch {
		case s.kind == stringScalar && s.text == "auto":
			return 0, nil
		case s.kind == intScalar && slices.Contains(sampleRates, s.text):
			v, _ := strconv.Atoi(s.text) // it is one of the list
			return v, nil
		}
		return 0, wrongf("%v is no sample rate of recordings", s)
	})
}

var durationShape = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`)

func duration(target *time.Duration, least, most time.Duration) *node {
	want := fmt.Sprintf("a duration such as 200ms, 14s or 5m, from %s to %s", short(least), short(most))
	schema := map[string]any{"type": "string", "pattern": durationShape.String()}
	return leaf(target, want, schema, func(s scalar) (time.Duration, *wrong) {
		if s.kind == intScalar || s.kind == floatScalar {
			return 0, wrongf("%v has no unit, write %sms, %ss or %sm", s, s.text, s.text, s.text)
		}
		d, err := time.ParseDuration(s.text)
		if err != nil || s.kind != stringScalar || !durationShape.MatchString(s.text) {
			return 0, wrongf("%v is no duration", s)
		}
		if d < least || d > most {
			return 0, wrongf("%s is out of range", s.text)
		}
		return d, nil
	})
}

// zeroOr is a duration from least to most, or 0s.
func zeroOr(target *time.Duration, least, most time.Duration) *node {
	n := duration(target, 0, most)
	n.want = fmt.Sprintf("a duration such as 200ms, 14s or 5m, from %s to %s, or 0s", short(least), short(most))
	parse := n.set
	n.set = func(s scalar) *wrong {
		was := *target
		w := parse(s)
		if w == nil && *target > 0 && *target < least {
			*target = was
			return wrongf("%s is out of range", s.text)
		}
		return w
	}
	return n
}

// short prints 5m0s as 5m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var (
	sizeShape = regexp.MustCompile(`^([0-9]+)(B|KiB|MiB|GiB|TiB)$`)
	sizeUnits = map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
)

func size(target *int64, least, most string) *node {
	lo, hi := mustSize(least), mustSize(most)
	want := fmt.Sprintf("a size such as 64MiB (B, KiB, MiB, GiB, TiB), from %s to %s", least, most)
	schema := map[string]any{"type": "string", "pattern": sizeShape.String()}
	return leaf(target, want, schema, func(s scalar) (int64, *wrong) {
		if s.kind == intScalar || s.kind == floatScalar {
			return 0, wrongf("%v has no unit, write %sB, %sKiB or %sMiB", s, s.text, s.text, s.text)
		}
		v, ok := parseSize(s.text)
		if !ok {
			return 0, wrongf("%v is no size", s)
		}
		if v < lo || v > hi {
			return 0, wrongf("%s is out of range", s.text)
		}
		return v, nil
	})
}

func parseSize(text string) (int64, bool) {
	m := sizeShape.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	v, err := strconv.ParseInt(m[1], 10, 64)
	unit := sizeUnits[m[2]]
	if err != nil || v > math.MaxInt64/unit {
		return 0, false
	}
	return v * unit, true
}

func mustSize(text string) int64 {
	v, ok := parseSize(text)
	if !ok {
		panic("config: table has a bad size: " + text)
	}
	return v
}

var nameShape = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func name(target *string) *node {
	want := "up to 63 lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit"
	schema := map[string]any{"type": "string", "pattern": nameShape.String()}
	return leaf(target, want, schema, func(s scalar) (string, *wrong) {
		switch {
		case s.kind != stringScalar:
			return "", wrongf("%v is no text, put it into quotes", s)
		case !nameShape.MatchString(s.text):
			return "", wrongf("%v is no name", s)
		}
		return s.text, nil
	})
}

func path(target *string) *node {
	schema := map[string]any{"type": "string", "pattern": "^/"}
	return leaf(target, "an absolute path such as /etc/trunktap/token", schema, func(s scalar) (string, *wrong) {
		switch {
		case s.kind != stringScalar || !filepath.IsAbs(s.text):
			return "", wrongf("%v is no absolute path", s)
		case strings.ContainsRune(s.text, 0):
			return "", wrongf("the path holds a zero byte")
		}
		return filepath.Clean(s.text), nil
	})
}

// word quotes a list of alternatives: "a, b or c".
func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func anys(words []string) []any {
	out := make([]any, len(words))
	for i, w := range words {
		out[i] = w
	}
	return out
}

func mediaAddress(target *netip.Addr) *node {
	return leaf(target, "an IP address that peers can reach, such as 203.0.113.10", map[string]any{"type": "string", "minLength": 2},
		func(s scalar) (netip.Addr, *wrong) {
			a, err := netip.ParseAddr(s.text)
			switch {
			case s.kind != stringScalar || err != nil || a.Zone() != "":
				return a, wrongf("%v is no IP address", s)
			case a.IsUnspecified() || a.IsMulticast():
				return a, wrongf("%s cannot be sent to", a)
			}
			return a.Unmap(), nil
		})
}
