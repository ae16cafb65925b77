package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
)

type usageInput struct {
	Group []string `query:"group" enum:"day,trunk,user,kind,store,node" maxItems:"6" doc:"What is summed up apart, separated by commas; without it, one sum."`
	From  string   `query:"from" maxLength:"10" doc:"Not before this day (2026-11-22) of the origin, in UTC."`
	To    string   `query:"to" maxLength:"10" doc:"Before this day."`
	Trunk string   `query:"trunk" maxLength:"256"`
	User  string   `query:"user" maxLength:"256"`
	Kind  string   `query:"kind" enum:"trunk,station,consult,adhoc,snippet"`
	Store string   `query:"store" maxLength:"256"`
	Node  string   `query:"node" maxLength:"256"`
}

type usageOutput struct {
	Body struct {
		Usage []recorder.Usage `json:"usage" nullable:"false"`
	}
}

func (s *Server) usageRoute() {
	if s.cfg.Usage == nil {
		return
	}
	op := operation("usage", http.MethodGet, "/v1/usage", "What is stored, as the catalogue accounts for it", http.StatusUnprocessableEntity)
	huma.Register(s.api, op, func(ctx context.Context, in *usageInput) (*usageOutput, error) {
		rows, err := s.cfg.Usage(ctx, recorder.UsageQuery{
			Group: in.Group, From: in.From, To: in.To, Trunk: in.Trunk, User: in.User, Kind: recorder.Kind(in.Kind), Store: in.Store, Node: in.Node,
		})
		if err != nil {
			return nil, s.problem("account for what is stored", err)
		}
		out := &usageOutput{}
		out.Body.Usage = append([]recorder.Usage{}, rows...)
		return out, nil
	})
}
