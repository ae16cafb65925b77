// Package ami is a source of call-state signals that reads Asterisk's manager
// interface (AMI), versions 13 to 22.
//
// What an operator sets in manager.conf:
//
//	[general]
//	enabled = yes
//	bindaddr = 10.0.0.5
//	timestampevents = yes        ; signals carry Asterisk's own time, not that of arrival
//
//	[trunktap]
//	secret = ...
//	permit = 10.0.0.9/255.255.255.255
//	read = call,agent,user
//	write = call,reporting       ; Getvar and Status; CoreShowChannels
//
// # Which call a signal is for
//
// A channel of Asterisk on a trunk (Config.Trunks) is a call of ours, found by
// its Call-ID, which trunktap keeps across its legs. So is the channel of a
// station whose own leg passes through trunktap (Config.Stations). The Call-ID
// comes from a ChanVariable header when manager.conf has one of
// Config.CallIDVariables in channelvars, else from the action Getvar: for PJSIP
// CHANNEL(pjsip,call-id), for chan_sip SIPCALLID. What happens to a call before
// its Call-ID is known waits for it, up to 10 s. A dialplan that has
//
//	same => n,Set(TRUNKTAP_CALLID=${CHANNEL(pjsip,call-id)})
//
// with channelvars = TRUNKTAP_CALLID in [general] spares the question.
//
// # What becomes of which events
//
// The source keeps a model of Asterisk's channels, bridges and queues and tells
// each call how it changes for that call. A call's party are all channels it is
// bridged with, through Local channels too.
//
//   - queue.start, queue.end: the caller is in a queue (QueueCallerJoin,
//     QueueCallerLeave, QueueCallerAbandon, AgentConnect).
//   - agent.join, agent.leave: a channel that is no trunk is bridged with the
//     call (BridgeEnter, BridgeLeave, ConfbridgeJoin, ConfbridgeLeave), or a queue
//     gave it the call (AgentConnect); with Config.QueueAgentsOnly only those
//     whom a queue gave a call, and members of conferences. The user is the
//     endpoint's name, "alice" of PJSIP/alice-0000002a, or what Config.Users says.
//   - agent.join as monitor, coach or barge: ChanSpyStart, ChanSpyStop. The event
//     has no mode, so the options of the spy's ChanSpy or ExtenSpy are asked for:
//     B is barge, w and W are coach, d and unknown is Config.SpyRole. Snooping by
//     ARI is not told by Asterisk's events.
//   - hold.start, hold.end: everybody inside whom the call is bridged with holds,
//     or the call's own channel does (Hold, Unhold); one agent of several in a
//     conference does not count. Music counts as a hold by "music" when it starts after an agent
//     was on the call, outside queues and while nobody holds (feature codes,
//     parking); music in a queue, and music that is the sound of a hold, do not.
//   - transfer.internal: after a BlindTransfer or AttendedTransfer, when the call
//     meets another agent or enters a queue. transfer.external: when a call that
//     had an agent is bridged with trunks alone, after a transfer or when all its
//     agents have hung up.
//   - consult.start, consult.end, on the calls of the consultation: an agent
//     whose older channel is on a trunk's call and holds it (or on a call that
//     hears music) talks on a newer channel of the same user. It ends with that
//     conversation or when the two merge. Consultations on the same channel, by
//     feature code, are not told from a hold.
//   - call.linked: two calls have one Linkedid, are in one bridge, or are a
//     consultation and its main call.
//   - everything else: UserEvent from the dialplan,
//     UserEvent(TrunktapSignal,Event: ivr.start,Flow: main). Further headers are
//     Queue, User, Role, Party, Other, Conversation, Attr-NAME and Call-ID; without
//     Call-ID it is for the calls of the channel.
//
// # Loss and return
//
// When the connection breaks SourceLost is sent and nothing else: what was on
// stays on. Once it is back CoreShowChannels and QueueStatus tell what is so now,
// the differences are sent with the time at which they were learnt, and
// SourceRestored follows. Holds are asked for with CHANNEL(rtp,hold), which only
// PJSIP answers; a hold of chan_sip that ended in the meantime stays on until the
// channel says otherwise, leaves its bridge or hangs up. What UserEvents said in
// the meantime, and spies who began, is not learnt.
package ami
