package catalog

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"
)

// schemaFile is what TestSchema makes of the migrated tables.
const schemaFile = "schema_gen.go"

var update = flag.Bool("update", false, "write "+schemaFile+" anew")

// schemaTables are the tables that both databases have, and what they are in Go.
var schemaTables = []genTable{
	{
		Name: "recordings", Alias: "r", Type: "row", Doc: "is a recording as its table has it: what it is sorted, narrowed down and accounted by.",
		Also: "manifest []byte // packed; in a table of its own, so that the rows lie close together",
	},
	{Name: "manifests", Alias: "m", Type: "manifestRow", Doc: "is a manifest as its table has it."},
	{Name: "usage", Type: "usageRow", Doc: "is what is stored of one day, trunk, user, kind, store and node."},
}

// schemaKey is what stored bytes are accounted by: the primary key of usage, which
// recordings have too.
const schemaKey = "usageKey"

// schemaLists are what searches and listings read.
var schemaLists = []genList{
	{Type: "hit", Doc: "is a row that was found.", Columns: []string{"recordings.key", "recordings.real_ms"}},
	{Type: "found", Doc: "is a row as a listing reads it.", Columns: []string{
		"recordings.key", "recordings.prefix", "recordings.node", "recordings.store", "recordings.manifest_bytes", "recordings.other_bytes", "recordings.spooled", "manifests.manifest",
	}},
}

// schemaTypes are Go's types of those of SQLite and PostgreSQL.
var schemaTypes = map[string]string{
	"INTEGER/bigint": "int64", "TEXT/text": "string", "REAL/double precision": "float64", "BLOB/bytea": "[]byte",
	"TEXT/jsonb": "string", "TEXT/tsvector": "termsCell",
}

type genColumn struct {
	Name, Go, Type, Doc string
	PK                  bool
	Of                  string // table
}

type genTable struct {
	Name, Alias, Type, Doc, Also string
	Columns                      []genColumn
}

type genList struct {
	Type, Doc string
	Columns   []string
	Fields    []genColumn
}

// TestSchema makes the columns that statements are written with of the migrated tables of
// both databases, and fails when those differ from each other or from what there is.
func TestSchema(t *testing.T) {
	lite := mustOpen(t, filepath.Join(t.TempDir(), "c.db"))
	url, err := mustPG(t).NewDatabase()
	if err != nil {
		t.Fatal(err)
	}
	pg := mustOpenURL(t, url, Options{})
	tables := slices.Clone(schemaTables)
	for i := range tables {
		tables[i].Columns = mustColumns(t, lite.db, pg.db, tables[i].Name)
	}
	want := mustGenerate(t, tables)
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil { //nolint:gosec // source
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is not what the tables are, run go generate (-want +got):\n%s", schemaFile, d)
	}
	for name, db := range map[string]*bun.DB{"sqlite": lite.db, "postgres": pg.db} {
		if d := gocmp.Diff([]string{"manifests", "recordings", "usage"}, mustTables(t, name, db)); d != "" {
			t.Errorf("tables of %s (-want +got):\n%s", name, d)
		}
	}
}

// mustTables lists the tables that are not an index's or the migrations' own.
func mustTables(t *testing.T, engine string, db *bun.DB) (list []string) {
	t.Helper()
	ask := `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'recordings!_%' ESCAPE '!' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'
		AND name <> 'goose_db_version' ORDER BY name`
	if engine == "postgres" {
		ask = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_name <> 'goose_db_version' ORDER BY table_name"
	}
	if err := db.NewRaw(ask).Scan(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// mustColumns reads the columns of a table that both databases have alike.
func mustColumns(t *testing.T, lite, pg *bun.DB, name string) []genColumn {
	t.Helper()
	type column struct {
		Name string
		Type string
		Must bool
		PK   bool
	}
	var a, b []column
	if err := lite.NewRaw(`SELECT name, type, "notnull" AS must, pk > 0 AS pk FROM pragma_table_info(?) ORDER BY cid`, name).Scan(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	err := pg.NewRaw(`SELECT c.column_name AS name, c.data_type AS type, c.is_nullable = 'NO' AS must, k.column_name IS NOT NULL AS pk
		FROM information_schema.columns AS c
		LEFT JOIN information_schema.table_constraints AS p ON p.table_schema = 'public' AND p.table_name = c.table_name AND p.constraint_type = 'PRIMARY KEY'
		LEFT JOIN information_schema.key_column_usage AS k ON k.constraint_schema = 'public' AND k.constraint_name = p.constraint_name AND k.column_name = c.column_name
		WHERE c.table_schema = 'public' AND c.table_name = ? ORDER BY c.ordinal_position`, name).Scan(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	var script string
	if err := lite.NewRaw("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", name).Scan(t.Context(), &script); err != nil {
		t.Fatal(err)
	}
	if len(a) == 0 || len(a) != len(b) {
		t.Fatalf("table %s: %d columns in SQLite, %d in PostgreSQL", name, len(a), len(b))
	}
	out := make([]genColumn, len(a))
	for i, x := range a {
		y := b[i]
		goType := schemaTypes[x.Type+"/"+y.Type]
		if x.Name != y.Name || !x.Must || !y.Must || x.PK != y.PK || goType == "" {
			t.Fatalf("table %s: column %+v in SQLite, %+v in PostgreSQL", name, x, y)
		}
		out[i] = genColumn{Name: x.Name, Go: goName(x.Name), Type: goType, PK: x.PK, Of: name, Doc: commentOf(script, x.Name)}
	}
	return out
}

// commentOf is what a script says behind a column.
func commentOf(script, column string) string {
	m := regexp.MustCompile(`(?m)^\s*` + column + `\s.*-- (.+)$`).FindStringSubmatch(script)
	if m == nil {
		return ""
	}
	return m[1]
}

// goName is what Go calls a column.
func goName(column string) string {
	if column == "user_name" {
		return "User" // user is a word of PostgreSQL
	}
	var out strings.Builder
	for _, part := range strings.Split(column, "_") {
		switch part {
		case "id", "ms", "ns", "mos":
			out.WriteString(strings.ToUpper(part))
		default:
			out.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return out.String()
}

// isKey tells whether a column is of what bytes are accounted by.
func isKey(tables []genTable, c genColumn) bool {
	for _, t := range tables {
		for _, k := range t.Columns {
			if t.Name == "usage" && k.PK && k.Name == c.Name && k.Type == c.Type {
				return true
			}
		}
	}
	return false
}

func mustGenerate(t *testing.T, tables []genTable) []byte {
	t.Helper()
	byName := map[string]genColumn{}
	alias := map[string]string{}
	for _, tab := range tables {
		alias[tab.Name] = cmp.Or(tab.Alias, tab.Name)
		for _, c := range tab.Columns {
			byName[tab.Name+"."+c.Name] = c
		}
	}
	lists := slices.Clone(schemaLists)
	for i := range lists {
		for _, name := range lists[i].Columns {
			c, ok := byName[name]
			if !ok {
				t.Fatalf("%s: there is no column %s", lists[i].Type, name)
			}
			lists[i].Fields = append(lists[i].Fields, c)
		}
	}
	var buf bytes.Buffer
	err := template.Must(template.New("").Funcs(template.FuncMap{
		"isKey": func(c genColumn) bool { return isKey(tables, c) },
		"alias": func(of string) string { return alias[of] },
		"opens": func(tab genTable, c genColumn) bool { // the first of the key's
			i := slices.IndexFunc(tab.Columns, func(x genColumn) bool { return isKey(tables, x) })
			return tab.Columns[i].Name == c.Name
		},
	}).Parse(schemaTemplate)).Execute(&buf, map[string]any{"Tables": tables, "Lists": lists, "Key": schemaKey})
	if err != nil {
		t.Fatal(err)
	}
	out, err := format.Source(buf.Bytes())
	if err != nil {
		t.Fatalf("%v\n%s", err, buf.Bytes())
	}
	return out
}

var schemaTemplate = fmt.Sprintf(`// Code generated by TestSchema from the migrated tables of both databases; DO NOT EDIT.

package catalog

import "github.com/uptrace/bun"
{{range $t := .Tables}}
// {{.Type}} {{.Doc}}
type {{.Type}} struct {
	bun.BaseModel %[1]sbun:"table:{{.Name}}{{with .Alias}},alias:{{.}}{{end}}"%[1]s
{{range .Columns}}{{if isKey .}}{{if opens $t .}}	{{$.Key}}
{{end}}{{else}}	{{.Go}} {{.Type}} %[1]sbun:"{{.Name}}{{if .PK}},pk{{end}}"%[1]s{{with .Doc}} // {{.}}{{end}}
{{end}}{{end}}{{with .Also}}
	{{.}}
{{end}}}
{{end}}
// {{.Key}} is what stored bytes are accounted by.
type {{.Key}} struct {
{{range .Tables}}{{if eq .Name "usage"}}{{range .Columns}}{{if .PK}}	{{.Go}} {{.Type}} %[1]sbun:"{{.Name}}"%[1]s
{{end}}{{end}}{{end}}{{end}}}
{{range .Lists}}
// {{.Type}} {{.Doc}}
type {{.Type}} struct {
{{range .Fields}}	{{.Go}} {{.Type}} %[1]sbun:"{{.Name}}"%[1]s
{{end}}}

// {{.Type}}Columns are what {{.Type}} is read from.
var {{.Type}}Columns = []string{ {{- range $i, $c := .Fields}}{{if $i}}, {{end}}"{{alias .Of}}.{{.Name}}"{{end -}} }
{{end}}{{range .Tables}}
// {{.Name}} are the columns of the table.
var {{.Name}} = struct {
	table
{{range .Columns}}	{{.Go}} column[{{.Type}}]
{{end}}}{
	table: table{"{{.Name}}", "{{.Alias}}"},
{{$t := .}}{{range .Columns}}	{{.Go}}: column[{{.Type}}]{table{"{{$t.Name}}", "{{$t.Alias}}"}, "{{.Name}}"},
{{end}}}
{{end}}`, "\x60")
