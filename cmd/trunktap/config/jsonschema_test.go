package config

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	yaml "github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func compiled(t *testing.T) (*jsonschema.Schema, any) {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	comp := jsonschema.NewCompiler()
	if err := comp.AddResource("config.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := comp.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	return s, doc
}

func yamlToJSON(t *testing.T, text string) any {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSchemaAcceptsWhatTheParserAccepts(t *testing.T) {
	s, _ := compiled(t)
	for _, text := range []string{Example, minimal, minimal + "stations: []\nsiprec: {}\nsip: {listen: [\"udp://[::]:5060\", \"tcp://[::]:5060\"]}\n"} {
		mustParse(t, text)
		if err := s.Validate(yamlToJSON(t, text)); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	s, _ := compiled(t)
	for _, text := range []string{
		"media: {}\n", minimal + "zz: 1\n", minimal + "media: {timeout: 5}\n", minimal + "media: {engine: epoll}\n",
		minimal + "stations: [7]\n", minimal + "limits: {calls_max: 0}\n", minimal + "storage: {url: \"ftp://x\"}\n",
		strings.Replace(minimal, "sip:192", "http:192", 1),
	} {
		if err := s.Validate(yamlToJSON(t, text)); err == nil {
			t.Errorf("accepted:\n%s", text)
		}
	}
}

// TestSchemaHasTheKeysOfTheParser walks both.
func TestSchemaHasTheKeysOfTheParser(t *testing.T) {
	var parser []string
	walk(table(&Config{}), "", func(path string, _ *node) { parser = append(parser, path) })
	_, doc := compiled(t)
	var schema []string
	var visit func(any, string)
	visit = func(v any, path string) {
		m, _ := v.(map[string]any)
		props, _ := m["properties"].(map[string]any)
		for k, p := range props {
			schema = append(schema, join(path, k))
			visit(p, join(path, k))
		}
		if items, ok := m["items"]; ok {
			visit(items, path+"[]")
		}
		if named, ok := m["additionalProperties"].(map[string]any); ok && named["properties"] != nil {
			visit(named, path+"[]")
		}
	}
	visit(doc, "")
	slices.Sort(parser)
	slices.Sort(schema)
	if d := cmp.Diff(parser, schema); d != "" || len(parser) < 60 {
		t.Errorf("%d keys: %s", len(parser), d)
	}
}
