package catalog

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/uptrace/bun"

	"github.com/trunktap/trunktap/recorder"
)

// usageRow is what is stored of one day, trunk, user, kind, store and node.
type usageRow struct {
	bun.BaseModel `bun:"table:usage"`

	usageKey
	Recordings    int64 `bun:"recordings"`
	AudioMS       int64 `bun:"audio_ms"`
	Bytes         int64 `bun:"bytes"`
	ManifestBytes int64 `bun:"manifest_bytes"`
	OtherBytes    int64 `bun:"other_bytes"`
}

// usageSums are changes of the account. They are saved with the rows that make
// them, in one transaction.
type usageSums map[usageKey]usageRow

func (u usageSums) add(r row, n int64) {
	s := u[r.usageKey]
	s.usageKey = r.usageKey
	s.Recordings += n
	s.AudioMS += n * r.AudioMS
	s.Bytes += n * r.Bytes
	s.ManifestBytes += n * r.ManifestBytes
	s.OtherBytes += n * r.OtherBytes
	u[r.usageKey] = s
}

func (k usageKey) compare(o usageKey) int {
	return cmp.Or(cmp.Compare(k.Day, o.Day), cmp.Compare(k.Trunk, o.Trunk), cmp.Compare(k.User, o.User), cmp.Compare(k.Kind, o.Kind),
		cmp.Compare(k.Store, o.Store), cmp.Compare(k.Node, o.Node))
}

func (u usageSums) save(ctx context.Context, tx bun.Tx) error {
	var rows []usageRow
	for _, s := range u {
		if (s != usageRow{usageKey: s.usageKey}) {
			rows = append(rows, s)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	// Who locks several rows does so in one order.
	slices.SortFunc(rows, func(a, b usageRow) int { return a.compare(b.usageKey) })
	q := tx.NewInsert().Model(&rows).ModelTableExpr("usage AS usage_row").On("CONFLICT (day, trunk, user_name, kind, store, node) DO UPDATE")
	for _, col := range usageColumns {
		q = q.Set("? = usage_row.? + EXCLUDED.?", bun.Ident(col), bun.Ident(col), bun.Ident(col))
	}
	_, err := q.Exec(ctx)
	return err
}

var usageColumns = []string{"recordings", "audio_ms", "bytes", "manifest_bytes", "other_bytes"}

// usageGroups are what usage can be grouped by, and the columns of that.
var usageGroups = map[string]string{
	"day": "day", "trunk": "trunk", "user": "user_name", "kind": "kind", "store": "store", "node": "node",
}

const usageRowsMax = 100_000

// Usage implements recorder.Accountant.
func (c *Catalog) Usage(ctx context.Context, q recorder.UsageQuery) ([]recorder.Usage, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	sel := c.db.NewSelect().TableExpr("usage").Where("recordings > 0")
	for _, col := range usageColumns {
		sel = sel.ColumnExpr("CAST(sum(?) AS BIGINT) AS ?", bun.Ident(col), bun.Ident(col))
	}
	for _, g := range q.Group {
		sel = sel.ColumnExpr("?", bun.Ident(usageGroups[g])).GroupExpr("?", bun.Ident(usageGroups[g])).OrderExpr("?", bun.Ident(usageGroups[g]))
	}
	for col, v := range map[string]string{"trunk": q.Trunk, "user_name": q.User, "kind": string(q.Kind), "store": q.Store, "node": q.Node} {
		if v != "" {
			sel = sel.Where("? = ?", bun.Ident(col), v)
		}
	}
	if q.From != "" {
		sel = sel.Where("day >= ?", q.From)
	}
	if q.To != "" {
		sel = sel.Where("day < ?", q.To)
	}
	var rows []usageRow
	if err := sel.Having("count(*) > 0").Limit(usageRowsMax+1).Scan(ctx, &rows); err != nil {
		return nil, c.fail("usage", err)
	}
	if len(rows) > usageRowsMax {
		return nil, &recorder.QueryError{Field: "group", Why: fmt.Sprintf("more than %d rows: group by less, or give from and to", usageRowsMax)}
	}
	out := make([]recorder.Usage, len(rows))
	for i, r := range rows {
		out[i] = recorder.Usage{
			Day: r.Day, Trunk: r.Trunk, User: r.User, Kind: recorder.Kind(r.Kind), Store: r.Store, Node: r.Node,
			Recordings: r.Recordings, AudioMS: r.AudioMS, AudioBytes: r.Bytes, ManifestBytes: r.ManifestBytes, OtherBytes: r.OtherBytes,
		}
	}
	return out, nil
}
