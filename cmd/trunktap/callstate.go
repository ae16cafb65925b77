package main

import (
	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/suppress"
)

// newCallState compiles the rules by which SIP messages are read for signals.
func newCallState(cfg *config.Config) (*callstate.Rules, error) {
	s := &cfg.Signals
	c := callstate.Config{
		UserToUserConversation: s.Conversation.UserToUser, Conversation: s.Conversation.Headers,
		ConversationFrom: callstate.From(s.Conversation.From),
		InfoSignals:      s.Info.Enabled, InfoTypes: s.Info.Types, InfoFrom: callstate.From(s.Info.From),
	}
	for i := range cfg.Trunks {
		if t := &cfg.Trunks[i]; t.Role == rolePhones {
			c.Inside = append(c.Inside, t.Name)
		}
	}
	for _, r := range s.Headers {
		c.Headers = append(c.Headers, callstate.HeaderRule{
			Header: r.Name, Value: r.Value, Event: suppress.Event(r.Event), Flow: r.Flow, Queue: r.Queue, User: r.User,
			Role: r.Role, Party: r.Party, Other: r.Other, From: callstate.From(r.From), OnChange: r.OnChange,
		})
	}
	for _, r := range s.UserToUser {
		c.UserToUser = append(c.UserToUser, callstate.UserToUserRule{
			Key: r.Name, Value: r.Value, Event: suppress.Event(r.Event), Flow: r.Flow, Queue: r.Queue, User: r.User,
			Role: r.Role, Party: r.Party, Other: r.Other, From: callstate.From(r.From), OnChange: r.OnChange,
		})
	}
	return callstate.New(c)
}
