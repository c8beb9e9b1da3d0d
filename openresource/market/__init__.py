"""Trade as arithmetic: programs, services, placements, channels, vouchers, receipts, holds, jobs, bonds and machines.

It never does I/O, reads a clock or draws chance. Open `channels.py` first: deposit once, promise totals, claim.

`channels.py` is a channel as the chain keeps it, `tabs.py` the gateway's side of it, `purses.py` the buyer's.
`vouchers.py`, `receipts.py` and `placements.py` hold the signed papers, `papers.py` what they have in common.
`natives/` is what the chain does when somebody writes at one of these paths; all other writes below them are refused.

Programs and services
    /programs/$cid                                    anybody, once    a program is registered
    /services/$publisher/$name/versions/$cid          its publisher, once   a version; number, time and newest are stamped
    /services/$publisher/$name/permissions            its publisher    who may call, who may run, behind which wall
    /services/$publisher/$name/choose/$record         its publisher    an earlier version is what the name means again
    /services/$publisher/$name/renounced              its publisher, once   nobody can change the service any more
    /services/$publisher/$name/latest                 the chain        the program of the version that was chosen last
    /services/$publisher/$name/before                 the chain        the program that was the latest before that one
    /services/$publisher/$name/by_version/$version    the chain        the program of a version's text
    /forks/$publisher/$name/$other/$fork              the chain        the program that a fork was made from

Placements
    /placements/$publisher/$name/$cid/$provider       the provider     OFFERED, PLACED, DRAINING, REFUSED or GONE

Channels (requests are consumed; the deposit is the balance of channels|market|<buyer>:<id>)
    /channels/$buyer/$id/open                         the buyer        terms are snapshot, the deposit is taken
    /channels/$buyer/$id/add/$record                  anybody          more money in
    /channels/$buyer/$id/extend/$record               the buyer        a later expiry
    /channels/$buyer/$id/claim/$record                the provider     fee, royalty, provider's part; nonce + 1
    /channels/$buyer/$id/close/$record                the buyer        after the expiry the rest returns; nonce + 1
    /channels/$buyer/$id/state                        the chain        terms, nonce, expiry, claimed

Bonds and records (a bond is the balance of deposits|market|bond:<provider>)
    /bonds/$provider/add/$record                      anybody          more pledge
    /bonds/$provider/withdraw/$record                 the provider     it counts no more at once, and is paid after a delay
    /bonds/$provider/state                            the chain        what is on its way back, locked, or new
    /records/$provider                                the chain        claims that were paid, their sum, since when
    /pairs/$provider/$buyer                           the chain        what one buyer has paid, and the fees in it
    /verified/$cid                                    the chain        what was seen of a program's jobs

Stakes, votes and reports (a stake is the balance of deposits|market|stake:<address>)
    /stakes/$address/add/$record                      its owner        a say in votes that begin later
    /stakes/$address/withdraw/$record                 its owner        it counts no more at once, and is paid after a delay
    /stakes/$address/state, /staked/total_uain        the chain        what counts, its steps, what is leaving; all together
    /kills/$cid/proposals/$ballot                     anybody          a vote begins, its deposit is taken
    /kills/$cid/votes/$ballot/$voter                  the voter, once  counted by the stake behind it
    /kills/$cid/state, /kills/$cid/ballots/$ballot    the chain        where the program stands; each vote with its sums
    /reports/$cid/$reporter/$report/report            the reporter     harm that somebody saw
    /reports/$cid/$reporter/$report/answers/$publisher/$name   who publishes it   what it says to that

Machines that open to people
    /machines/$machine/offer                          the machine      where, its host key, its owner, its rent
    /machines/$machine/guests/$address                its owner        who may enter, until when
    /machines/$machine/rentals/$record                anybody          rent is paid, the tenant may enter
    /machines/$machine/tenants/$address               the chain        until when somebody has paid
    /ssh_keys/$address/$fingerprint                   that wallet      a key that it vouches for

Holds and jobs (money in holds|market|<app>:<id> and holds|market|job:<job>)
    /holds/$app/$id/fund/$record                      anybody          money that pays an app's jobs, until it expires
    /holds/$app/$id/state                             the chain        owner and expiry
    /job_requests/$requester/$key                     the requester    asks for a run; the budget is taken
    /jobs/$job/request, /jobs/$job/state              the chain        made by a request, or a write where a PROGRAM entry stands
    /jobs/$job/leases/$provider                       a provider       in its turn: the right to work, audit or referee for a while
    /jobs/$job/commits/$provider                      a leaseholder    binds itself to a result that nobody can read yet
    /jobs/$job/secret/$requester                      the requester    with the beacon it draws whether the job is audited
    /jobs/$job/reveals/$provider                      who is bound     the result; the last one brings the verdict and the money
    /jobs/$job/executions/$provider                   the leaseholder  the result of policy one; else written by the chain
    /jobs/$job/keys/$provider                         the requester    the key of sealed content for who came later
    /jobs/$job/disputes/$disputer/$key                anybody          doubts an accepted result against a bond
    /jobs/$job/faults/$reporter/$key                  anybody          two results that one provider signed
    /jobs/$job/verdict, /jobs/$job/judgement          the chain        what became of it; what became of a dispute of it
    /jobs/$job/moves, /jobs/$job/slashes              the chain        each move of money in its settlement; what proven faults cost
    /jobs/$job/folded                                 the chain        all that is left of it in the end
"""
