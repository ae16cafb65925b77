package main

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/trunktap/trunktap/recorder"
)

// searchFlags are a flag for each of recorder.QueryFields but those that the
// command has itself.
type searchFlags struct {
	fields []*recorder.QueryField
	values reflect.Value // pointer to a struct with a field each
}

func newSearchFlags(without ...string) *searchFlags {
	s := &searchFlags{}
	var types []reflect.StructField
	for i := range recorder.QueryFields {
		f := &recorder.QueryFields[i]
		if contains(without, f.Name) {
			continue
		}
		tag := fmt.Sprintf("name:%q help:%q placeholder:%q", flagName(f), f.Doc, f.Arg)
		t := reflect.TypeFor[string]()
		switch {
		case f.Many:
			t, tag = reflect.TypeFor[[]string](), tag+` sep:"none"`
		case f.Arg == "BOOL":
			t = reflect.TypeFor[bool]()
		case f.Words != nil:
			tag += fmt.Sprintf(" enum:%q default:%q", ","+strings.Join(f.Words, ","), "")
		}
		s.fields = append(s.fields, f)
		types = append(types, reflect.StructField{Name: "F" + f.Name, Type: t, Tag: reflect.StructTag(tag)})
	}
	s.values = reflect.New(reflect.StructOf(types))
	return s
}

func contains(all []string, name string) bool {
	for _, a := range all {
		if a == name {
			return true
		}
	}
	return false
}

func flagName(f *recorder.QueryField) string { return strings.ReplaceAll(f.Name, "_", "-") }

// plugin is what kong reads the flags from.
func (s *searchFlags) plugin() kong.Plugins { return kong.Plugins{s.values.Interface()} }

// query is what the flags ask for.
func (s *searchFlags) query() (recorder.Query, error) {
	var q recorder.Query
	for i, f := range s.fields {
		var values []string
		switch v := s.values.Elem().Field(i).Interface().(type) {
		case []string:
			values = v
		case bool:
			if v {
				values = []string{"true"}
			}
		case string:
			if v != "" {
				values = []string{v}
			}
		}
		for _, v := range values {
			if f.Arg == "TIME" {
				m := moment{}
				if err := m.UnmarshalText([]byte(v)); err != nil {
					return q, usagef("trunktap: --%s: %w", flagName(f), err)
				}
				v = m.Format(time.RFC3339Nano)
			}
			if err := f.Set(&q, v); err != nil {
				return q, flagError(err)
			}
		}
	}
	if err := q.Check(); err != nil {
		return q, flagError(err)
	}
	return q, nil
}

// flagError names fields as flags have them.
func flagError(err error) error {
	text := err.Error()
	for i := range recorder.QueryFields {
		f := &recorder.QueryFields[i]
		text = strings.ReplaceAll(text, f.Name, flagName(f))
	}
	return usagef("trunktap: --%s", text)
}

// parameters are those of the API for a query.
func parameters(q *recorder.Query) url.Values {
	v := url.Values{}
	for i := range recorder.QueryFields {
		f := &recorder.QueryFields[i]
		if all := f.Get(q); len(all) > 0 {
			v[f.Name] = all
		}
	}
	return v
}
