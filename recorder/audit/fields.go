package audit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// fields is a text of lines "key: value" behind a first line that says what it
// is. Every text has one form only: who parses it writes it again and compares.
type fields struct {
	values map[string][]string
	err    error // the first fault of a value
}

// fieldLinesMax bounds the lines of a text.
const fieldLinesMax = FilesMax + 64

func parseFields(text, head string) (*fields, error) {
	rest, ok := strings.CutPrefix(text, head)
	if !ok {
		return nil, fmt.Errorf("it does not begin with %q", strings.TrimSpace(head))
	}
	f := &fields{values: map[string][]string{}}
	for n := 0; rest != ""; n++ {
		var line string
		if line, rest, ok = strings.Cut(rest, "\n"); !ok || n > fieldLinesMax {
			return nil, fmt.Errorf("line %d is not whole", n+2)
		}
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			return nil, fmt.Errorf("line %d is not \"key: value\"", n+2)
		}
		f.values[key] = append(f.values[key], value)
	}
	return f, nil
}

func (f *fields) one(key string) string {
	if v := f.values[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (f *fields) fail(key string, err error) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %w", key, err)
	}
}

func (f *fields) integer(key string) int64 {
	n, err := strconv.ParseInt(f.one(key), 10, 64)
	if err == nil && n < 0 {
		err = strconv.ErrRange
	}
	if err != nil {
		f.fail(key, err)
	}
	return n
}

func (f *fields) time(key, layout string) time.Time {
	t, err := time.Parse(layout, f.one(key))
	if err != nil {
		f.fail(key, err)
	}
	return t
}
