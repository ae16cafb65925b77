package main

import "net/netip"

// Addresses that the parties and the programs under test use.
var (
	relayMedia = [2]netip.Addr{netip.MustParseAddr("10.231.1.1"), netip.MustParseAddr("10.231.2.1")}
	partyMedia = [2]netip.Addr{netip.MustParseAddr("10.231.1.2"), netip.MustParseAddr("10.231.2.2")}
	relaySIP   = netip.MustParseAddrPort("10.231.3.1:5060")
	callerSIP  = netip.MustParseAddrPort("10.231.3.2:5060")
	calleeSIP  = netip.MustParseAddrPort("10.231.3.3:5060")
	directAddr = [2]netip.Addr{netip.MustParseAddr("10.231.4.2"), netip.MustParseAddr("10.231.4.1")}
)
