package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// bencodeDepthMax bounds how deeply what is decoded is nested.
const bencodeDepthMax = 16

var errBencode = errors.New("not bencode")

// bencode appends v: string, int, []any or map[string]any (keys in order).
func bencode(out []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		out = strconv.AppendInt(out, int64(len(v)), 10)
		return append(append(out, ':'), v...)
	case int:
		return append(strconv.AppendInt(append(out, 'i'), int64(v), 10), 'e')
	case []any:
		out = append(out, 'l')
		for _, e := range v {
			out = bencode(out, e)
		}
		return append(out, 'e')
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		out = append(out, 'd')
		for _, k := range keys {
			out = bencode(bencode(out, k), v[k])
		}
		return append(out, 'e')
	}
	panic(fmt.Sprintf("bencode of %T", v)) // a bug of the caller
}

// bdecode reads one value, which must be all of b.
func bdecode(b []byte) (any, error) {
	v, rest, err := bvalue(b, 0)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the value", errBencode, len(rest))
	}
	return v, nil
}

func bvalue(b []byte, depth int) (v any, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, fmt.Errorf("%w: it breaks off", errBencode)
	}
	if depth > bencodeDepthMax {
		return nil, nil, fmt.Errorf("%w: nested too deeply", errBencode)
	}
	switch {
	case b[0] == 'i':
		n, rest, err := bnumber(b[1:], 'e')
		return n, rest, err
	case b[0] >= '0' && b[0] <= '9':
		return bstring(b)
	case b[0] == 'l':
		list := []any{}
		for b = b[1:]; len(b) > 0 && b[0] != 'e'; list = append(list, v) {
			if v, b, err = bvalue(b, depth+1); err != nil {
				return nil, nil, err
			}
		}
		return list, skipEnd(b), endOf(b)
	case b[0] == 'd':
		dict := map[string]any{}
		for b = b[1:]; len(b) > 0 && b[0] != 'e'; {
			var key string
			if key, b, err = bstring(b); err != nil {
				return nil, nil, err
			}
			if dict[key], b, err = bvalue(b, depth+1); err != nil {
				return nil, nil, err
			}
		}
		return dict, skipEnd(b), endOf(b)
	}
	return nil, nil, fmt.Errorf("%w: it begins with %q", errBencode, b[0])
}

func skipEnd(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b[1:]
}

func endOf(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: it breaks off", errBencode)
	}
	return nil
}

func bnumber(b []byte, end byte) (int, []byte, error) {
	i := slices.Index(b, end)
	if i < 0 {
		return 0, nil, fmt.Errorf("%w: a number without end", errBencode)
	}
	n, err := strconv.Atoi(string(b[:i]))
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errBencode, err)
	}
	return n, b[i+1:], nil
}

func bstring(b []byte) (string, []byte, error) {
	n, rest, err := bnumber(b, ':')
	if err != nil {
		return "", nil, err
	}
	if n < 0 || n > len(rest) {
		return "", nil, fmt.Errorf("%w: a string of %d bytes where %d are left", errBencode, n, len(rest))
	}
	return string(rest[:n]), rest[n:], nil
}
