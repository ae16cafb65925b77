package config

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Bounds of a document. Aliases may be followed, so both are counted where
// they are used, not where they are written.
const (
	depthMax  = 32
	valuesMax = 1_000_000
	faultsMax = 200
)

// position of a value in the file, from 1.
type position struct{ line, column int }

// decoder walks a document along the table. It is used once.
type decoder struct {
	file    string
	anchors map[string]ast.Node
	faults  Faults
	at      map[string]position // path → where its value begins
	values  int
}

func (d *decoder) fault(at position, path, problem, allowed string) {
	if len(d.faults) < faultsMax {
		d.faults = append(d.faults, Fault{d.file, at.line, at.column, path, problem, allowed})
	}
}

// where returns the first position of a node.
func where(v ast.Node) position {
	switch n := v.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return where(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return where(n.Key)
	}
	if t := v.GetToken(); t != nil && t.Position != nil {
		return position{max(t.Position.Line, 1), max(t.Position.Column, 1)}
	}
	return position{1, 1}
}

// resolve follows anchors and aliases. It returns nil after a fault.
func (d *decoder) resolve(path string, v ast.Node) ast.Node {
	for range depthMax {
		switch n := v.(type) {
		case *ast.AnchorNode:
			v = n.Value
		case *ast.AliasNode:
			target, ok := d.anchors[n.Value.GetToken().Value]
			if !ok {
				d.fault(where(v), path, fmt.Sprintf("alias *%s has no anchor", n.Value.GetToken().Value), "")
				return nil
			}
			v = target
		case *ast.TagNode:
			d.fault(where(v), path, "tags are not taken", "the plain value")
			return nil
		case nil:
			return nil
		default:
			return v
		}
	}
	d.fault(where(v), path, "aliases lead in a circle", "")
	return nil
}

// room counts a value and tells whether the bounds allow it. Too many values
// are reported once.
func (d *decoder) room(path string, v ast.Node, depth int) bool {
	d.values++
	if d.values == valuesMax+1 || depth > depthMax {
		d.fault(where(v), path, "the file holds too much, aliases counted where they are used",
			fmt.Sprintf("%d values, %d levels", valuesMax, depthMax))
	}
	return d.values <= valuesMax && depth <= depthMax
}

// value decodes v as n tells.
func (d *decoder) value(n *node, path string, v ast.Node, depth int) {
	if !d.room(path, v, depth) {
		return
	}
	at := where(v)
	if v = d.resolve(path, v); v == nil {
		return
	}
	d.at[path] = at
	if _, ok := v.(*ast.NullNode); ok {
		d.fault(at, path, "there is no value", n.allowed()+", or to leave the key out")
		return
	}
	switch n.kind {
	case objectKind:
		d.object(n, path, v, at, depth)
	case listKind:
		d.list(n, path, v, at, depth)
	case mapKind:
		d.mapping(n, path, v, at, depth)
	case leafKind:
		d.leaf(n, path, v, at)
	}
}

func (d *decoder) leaf(n *node, path string, v ast.Node, at position) {
	s, ok := scalarOf(v)
	if !ok {
		d.fault(at, path, describe(v)+" where one value belongs", n.want)
		return
	}
	if w := n.set(s); w != nil {
		d.fault(at, path, w.problem, n.want)
	}
}

func (d *decoder) mapping(n *node, path string, v ast.Node, at position, depth int) {
	pairs, ok := d.pairs(path, v, depth)
	if !ok {
		d.fault(at, path, describe(v)+" where a mapping belongs", n.want)
		return
	}
	n.clear()
	if len(pairs) > n.max {
		d.fault(at, path, fmt.Sprintf("the mapping has %d names", len(pairs)), fmt.Sprintf("at most %d", n.max))
		return
	}
	seen := map[string]bool{}
	for _, p := range pairs {
		full := join(path, p.key)
		if !d.room(full, p.value, depth+1) {
			return
		}
		if w := textFault(p.key); w != nil {
			d.fault(p.at, path, w.problem, textWant)
			continue
		}
		if seen[p.key] {
			d.fault(p.at, full, "the name stands there twice", "once")
		}
		seen[p.key] = true
		at := where(p.value)
		v := d.resolve(full, p.value)
		if v == nil {
			continue
		}
		s, ok := scalarOf(v)
		if !ok {
			d.fault(at, full, describe(v)+" where one value belongs", n.want)
		} else if w := n.put(p.key, s); w != nil {
			d.fault(at, full, w.problem, n.want)
		}
	}
}

// named decodes a mapping of names into a list.
func (d *decoder) named(n *node, path string, v ast.Node, at position, depth int) {
	pairs, ok := d.pairs(path, v, depth)
	if !ok {
		d.fault(at, path, describe(v)+" where a mapping belongs", n.allowed())
		return
	}
	n.clear()
	if len(pairs) > n.max {
		d.fault(at, path, fmt.Sprintf("the mapping has %d names", len(pairs)), fmt.Sprintf("at most %d", n.max))
		return
	}
	seen := map[string]bool{}
	for _, p := range pairs {
		full := join(path, p.key)
		switch {
		case !nameShape.MatchString(p.key):
			d.fault(p.at, path, fmt.Sprintf("%q is no name", p.key), "up to 63 lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit")
			continue
		case seen[p.key]:
			d.fault(p.at, full, "the name stands there twice", "once")
			continue
		}
		seen[p.key] = true
		child := n.add()
		n.names(p.key)
		applyDefaults(child)
		d.value(child, full, p.value, depth+1)
	}
}

func (d *decoder) list(n *node, path string, v ast.Node, at position, depth int) {
	if n.names != nil {
		d.named(n, path, v, at, depth)
		return
	}
	seq, ok := v.(*ast.SequenceNode)
	if !ok {
		d.fault(at, path, describe(v)+" where a list belongs", n.allowed())
		return
	}
	n.clear()
	if len(seq.Values) < n.min || len(seq.Values) > n.max {
		d.fault(at, path, fmt.Sprintf("the list has %d entries", len(seq.Values)), fmt.Sprintf("%d to %d", n.min, n.max))
		return
	}
	for i, item := range seq.Values {
		child := n.add()
		applyDefaults(child)
		d.value(child, fmt.Sprintf("%s[%d]", path, i), item, depth+1)
	}
}

// pair is one key of a mapping with its value.
type pair struct {
	key   string
	at    position
	value ast.Node
}

func (d *decoder) object(n *node, path string, v ast.Node, at position, depth int) {
	if n.short != "" && d.short(n.field(n.short), path, v, at, depth) {
		return
	}
	pairs, ok := d.pairs(path, v, depth)
	if !ok {
		d.fault(at, path, describe(v)+" where a mapping belongs", n.allowed())
		return
	}
	seen := map[string]bool{}
	for _, p := range pairs {
		if len(d.faults) >= faultsMax {
			return
		}
		full := join(path, p.key)
		f := n.field(p.key)
		switch {
		case seen[p.key]:
			d.fault(p.at, full, "the key stands there twice", "once")
		case f == nil:
			d.fault(p.at, full, "the key is not known"+d.guess(n, p.key), keysOf(n))
		default:
			d.value(f, full, p.value, depth+1)
		}
		seen[p.key] = true
	}
	for _, f := range n.fields {
		if f.required && !seen[f.key] && (f.instead == "" || !seen[f.instead]) {
			d.fault(at, join(path, f.key), "the key is missing", f.allowed())
		}
	}
}

// short decodes what stands where a mapping might, as the one field that may
// stand alone. False: it does not.
func (d *decoder) short(f *node, path string, v ast.Node, at position, depth int) bool {
	_, scalar := scalarOf(v)
	_, sequence := v.(*ast.SequenceNode)
	switch {
	case scalar && f.kind == leafKind:
		d.leaf(f, path, v, at)
	case sequence && f.kind == listKind:
		d.list(f, path, v, at, depth)
	default:
		return false
	}
	d.at[join(path, f.key)] = at
	return true
}

// pairs lists the keys of a mapping. What << merges in comes last and only
// where the mapping does not say otherwise. False: v is no mapping.
func (d *decoder) pairs(path string, v ast.Node, depth int) ([]pair, bool) {
	var values []*ast.MappingValueNode
	switch m := v.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		return nil, false
	}
	var own, merged []pair
	for _, mv := range values {
		if _, ok := mv.Key.(*ast.MergeKeyNode); ok {
			merged = append(merged, d.merge(path, mv.Value, depth+1)...)
			continue
		}
		k, ok := scalarOf(mv.Key)
		if !ok {
			d.fault(where(mv.Key), path, "the key is no plain word", "")
			continue
		}
		own = append(own, pair{k.text, where(mv.Key), mv.Value})
	}
	have := map[string]bool{}
	for _, p := range own {
		have[p.key] = true
	}
	for _, p := range merged {
		if !have[p.key] {
			have[p.key] = true
			own = append(own, p)
		}
	}
	return own, true
}

// merge lists the keys that a merge key brings in.
func (d *decoder) merge(path string, v ast.Node, depth int) []pair {
	if !d.room(path, v, depth) {
		return nil
	}
	at := where(v)
	if v = d.resolve(path, v); v == nil {
		return nil
	}
	if seq, ok := v.(*ast.SequenceNode); ok {
		var all []pair
		for _, item := range seq.Values {
			all = append(all, d.merge(path, item, depth+1)...)
		}
		return all
	}
	pairs, ok := d.pairs(path, v, depth)
	if !ok {
		d.fault(at, path, "<< merges mappings only", "an alias of a mapping")
	}
	return pairs
}

// guess helps with a key that is not known.
func (d *decoder) guess(n *node, key string) string {
	var keys []string
	for _, f := range n.fields {
		keys = append(keys, f.key)
	}
	if g := near(key, keys); g != "" {
		return fmt.Sprintf(", did you mean %q?", g)
	}
	var elsewhere []string
	walk(table(&Config{}), "", func(path string, f *node) {
		if f.key == key {
			elsewhere = append(elsewhere, path)
		}
	})
	if len(elsewhere) > 0 {
		return " here, it belongs to " + orList(elsewhere)
	}
	return ""
}

// scalarOf returns the one value of a node.
func scalarOf(v ast.Node) (scalar, bool) {
	switch n := v.(type) {
	case *ast.StringNode:
		return scalar{n.Value, stringScalar}, true
	case *ast.LiteralNode:
		return scalar{n.Value.Value, stringScalar}, true
	case *ast.IntegerNode:
		return scalar{n.GetToken().Value, intScalar}, true
	case *ast.FloatNode:
		return scalar{n.GetToken().Value, floatScalar}, true
	case *ast.InfinityNode, *ast.NanNode:
		return scalar{n.GetToken().Value, floatScalar}, true
	case *ast.BoolNode:
		return scalar{strings.ToLower(n.GetToken().Value), boolScalar}, true
	}
	return scalar{}, false
}

func describe(v ast.Node) string {
	switch v.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	if s, ok := scalarOf(v); ok {
		return s.String()
	}
	return "a " + strings.ToLower(v.Type().String())
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func keysOf(n *node) string {
	var keys []string
	for _, f := range n.fields {
		keys = append(keys, f.key)
	}
	return strings.Join(keys, ", ")
}

// walk calls f for every key of the table, with paths like
// "trunks[].recording.format".
func walk(n *node, path string, f func(string, *node)) {
	if path != "" {
		f(path, n)
	}
	for _, c := range n.fields {
		walk(c, join(path, c.key), f)
	}
	if n.kind == listKind {
		if item := n.proto(); item.kind == objectKind {
			for _, c := range item.fields {
				walk(c, join(path+"[]", c.key), f)
			}
		}
	}
}

// near returns the word that is closest to a misspelt one, if any is close.
func near(word string, words []string) string {
	best, limit := "", 1+len(word)/4
	if len(word) > 64 {
		return ""
	}
	for _, w := range words {
		if n := distance(strings.ToLower(word), w); n <= limit {
			best, limit = w, n-1
		}
	}
	return best
}

// distance is the edit distance of two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
