package catalog

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/uptrace/bun"

	"github.com/trunktap/trunktap/recorder"
)

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
	q := tx.NewInsert().Model(&rows).ModelTableExpr(usage.name + " AS usage_row").
		On("CONFLICT (" + names(usage.Day, usage.Trunk, usage.User, usage.Kind, usage.Store, usage.Node) + ") DO UPDATE")
	for _, col := range usageColumns {
		q = q.Set("? = usage_row.? + EXCLUDED.?", col.ident(), col.ident(), col.ident())
	}
	_, err := q.Exec(ctx)
	return err
}

var usageColumns = []column[int64]{usage.Recordings, usage.AudioMS, usage.Bytes, usage.ManifestBytes, usage.OtherBytes}

// usageGroups are what usage can be grouped by, and the columns of that.
var usageGroups = map[string]column[string]{
	"day": usage.Day, "trunk": usage.Trunk, "user": usage.User, "kind": usage.Kind, "store": usage.Store, "node": usage.Node,
}

const usageRowsMax = 100_000

// Usage implements recorder.Accountant.
func (c *Catalog) Usage(ctx context.Context, q recorder.UsageQuery) ([]recorder.Usage, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	sel := usage.Recordings.above(0).on(usage.from(c.db))
	for _, col := range usageColumns {
		sel = sel.ColumnExpr("CAST(sum(?) AS BIGINT) AS ?", col.ident(), col.ident())
	}
	for _, g := range q.Group {
		col := usageGroups[g].ident()
		sel = sel.ColumnExpr("?", col).GroupExpr("?", col).OrderExpr("?", col)
	}
	for col, v := range map[column[string]]string{usage.Trunk: q.Trunk, usage.User: q.User, usage.Kind: string(q.Kind), usage.Store: q.Store, usage.Node: q.Node} {
		if v != "" {
			sel = col.is(v).on(sel)
		}
	}
	if q.From != "" {
		sel = usage.Day.atLeast(q.From).on(sel)
	}
	if q.To != "" {
		sel = usage.Day.below(q.To).on(sel)
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
