package config

import "encoding/json"

// Schema returns the JSON Schema (2020-12) of the file, for editors and other
// tools. It knows the same keys as the parser; rules between keys are the
// parser's alone.
func Schema() ([]byte, error) {
	s := schemaOf(table(&Config{}))
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Configuration of trunktap"
	return json.MarshalIndent(s, "", "  ")
}

func schemaOf(n *node) map[string]any {
	s := map[string]any{}
	for k, v := range n.schema {
		s[k] = v
	}
	switch n.kind {
	case objectKind:
		properties, required := map[string]any{}, []any{}
		for _, f := range n.fields {
			properties[f.key] = schemaOf(f)
			if f.required && f.instead != "" {
				s["anyOf"] = []any{map[string]any{"required": []any{f.key}}, map[string]any{"required": []any{f.instead}}}
			} else if f.required {
				required = append(required, f.key)
			}
		}
		s["properties"], s["additionalProperties"] = properties, false
		if n.short == "" {
			s["type"] = "object"
		} else { // the keywords above and below say nothing about anything but mappings
			s["anyOf"] = []any{map[string]any{"type": "object"}, schemaOf(n.field(n.short))}
		}
		if len(required) > 0 {
			s["required"] = required
		}
	case listKind:
		if n.names != nil {
			s["type"], s["additionalProperties"], s["maxProperties"] = "object", schemaOf(n.proto()), n.max
			s["propertyNames"] = map[string]any{"pattern": nameShape.String()}
			break
		}
		s["type"], s["items"], s["minItems"], s["maxItems"] = "array", schemaOf(n.proto()), n.min, n.max
	case leafKind, mapKind:
	}
	switch {
	case n.doc != "" && n.want != "":
		s["description"] = n.doc + " Allowed: " + n.want + "."
	case n.doc != "":
		s["description"] = n.doc
	}
	if v, ok := defaultValue(n); ok {
		s["default"] = v
	}
	return s
}
