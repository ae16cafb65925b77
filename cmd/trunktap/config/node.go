package config

import "fmt"

// kind of a node of the table.
type kind uint8

const (
	leafKind   kind = iota // one scalar
	objectKind             // a mapping of known keys
	listKind               // a sequence
	mapKind                // a mapping of free names to one kind of scalar
)

// node describes one key and is bound to the place its value goes to.
type node struct {
	kind    kind
	key     string // in the mapping above; empty for the root and for items
	doc     string // for the example file and the schema
	want    string // what is allowed, in words
	def     string // the default as YAML; empty: none
	example string // what the example file shows where there is no fixed default
	live    bool   // shown in the example as a key, not in a comment
	quiet   bool   // shown in the example in a comment, though it has a default
	aside   bool   // an object that the example shows in a comment, with all that is in it
	schema  map[string]any

	required bool
	instead  string // a key beside it that makes it needless; empty: none
	restart  bool   // a change takes effect at the next start only

	// leafKind
	set    func(scalar) *wrong
	target any // pointer to the value, for comparing

	// objectKind
	fields []*node
	short  string // key of the field that may stand in the place of all; empty: none

	// mapKind
	put func(name string, s scalar) *wrong

	// listKind and mapKind
	clear func()
	add   func() *node   // appends an element and returns its node
	items func() []*node // nodes of the elements that are there
	proto func() *node   // node of an element that is in no list
	names func(string)   // of a list that the file has as a mapping of names: names the last element; else nil
	min   int            // elements
	max   int            // elements, of mapKind too
}

// allowed says in words what may stand there.
func (n *node) allowed() string {
	switch n.kind {
	case objectKind:
		if n.short != "" {
			return n.field(n.short).allowed() + ", or a mapping of " + keysOf(n)
		}
		return "a mapping of " + keysOf(n)
	case listKind:
		if n.names != nil {
			return fmt.Sprintf("a mapping of at most %d names, each to ", n.max) + n.proto().allowed()
		}
		switch item := n.proto(); {
		case item.kind == leafKind:
			return "a list, each " + item.want
		case item.short != "":
			return "a list, each " + item.allowed()
		}
		return "a list of mappings of " + keysOf(n.proto())
	case leafKind, mapKind:
	}
	return n.want
}

// field returns the node of a key, nil when there is none.
func (n *node) field(key string) *node {
	for _, f := range n.fields {
		if f.key == key {
			return f
		}
	}
	return nil
}

func leaf[T any](target *T, want string, schema map[string]any, parse func(scalar) (T, *wrong)) *node {
	return &node{kind: leafKind, want: want, schema: schema, target: target, set: func(s scalar) *wrong {
		v, w := parse(s)
		if w == nil {
			*target = v
		}
		return w
	}}
}

func object(fields ...*node) *node { return &node{kind: objectKind, fields: fields} }

// shortly is an object for which one field, a value or a list, may stand alone.
func shortly(short string, fields ...*node) *node {
	n := object(fields...)
	n.short = short
	return n
}

// mapping is a mapping of free names, each with a value that is parsed as one
// of item is.
func mapping[T any](target *map[string]T, most int, item func(*T) *node) *node {
	var v T
	proto := item(&v)
	return &node{
		kind: mapKind, target: target, max: most,
		want: fmt.Sprintf("a mapping of at most %d names, each to %s", most, proto.want),
		schema: map[string]any{
			"type": "object", "maxProperties": most, "additionalProperties": proto.schema,
			"propertyNames": map[string]any{"minLength": 1, "maxLength": textBytesMax},
		},
		clear: func() { *target = nil },
		put: func(name string, s scalar) *wrong {
			w := proto.set(s)
			if w == nil {
				if *target == nil {
					*target = map[string]T{}
				}
				(*target)[name] = v
			}
			return w
		},
	}
}

func list[T any](target *[]T, least, most int, item func(*T) *node) *node {
	return &node{
		kind: listKind, min: least, max: most, target: target,
		clear: func() { *target = nil },
		add: func() *node {
			*target = append(*target, *new(T))
			return item(&(*target)[len(*target)-1])
		},
		items: func() []*node {
			nodes := make([]*node, len(*target))
			for i := range *target {
				nodes[i] = item(&(*target)[i])
			}
			return nodes
		},
		proto: func() *node { return item(new(T)) },
	}
}

// named is a list that the file has as a mapping of names to elements.
func named[T any](target *[]T, most int, item func(*T) *node, name func(*T, string)) *node {
	n := list(target, 0, most, item)
	n.names = func(s string) { name(&(*target)[len(*target)-1], s) }
	return n
}

// key names a node in the table.
func key(name, doc string, n *node) *node {
	n.key, n.doc = name, doc
	return n
}

func (n *node) is(def string) *node        { n.def = def; return n }
func (n *node) shown(example string) *node { n.example = example; return n }
func (n *node) lively() *node              { n.live = true; return n }
func (n *node) quietly() *node             { n.quiet = true; return n }
func (n *node) apart() *node               { n.aside = true; return n }
func (n *node) must() *node                { n.required = true; return n }
func (n *node) unless(other string) *node  { n.instead = other; return n }

// atStart marks the node and all below it as read at the start only.
func (n *node) atStart() *node {
	n.restart = true
	for _, f := range n.fields {
		f.atStart()
	}
	return n
}
