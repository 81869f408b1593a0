/** The states of pools, as a port keeps them. */
import * as Law from "../pacing/law.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Rules from "../domain/rules.ts"
import type { Kind } from "./kind.ts"
import * as Members from "./members.ts"
import * as State from "./state.ts"
import type { PoolState } from "./state.ts"
import * as StoreLoss from "./storeLoss.ts"
import * as Text from "./text.ts"
import * as Time from "./time.ts"

/** An unused state is stored until every debt and window is over, and for a month if there is a quota. */
const keepMillis = 3_600_000
const keepQuotaMillis = 30 * 86_400_000

export const pools: Kind<PoolState> = {
  noun: "pool",
  keyOf: State.keyOf,
  make: State.make,
  copy: State.copy,
  encode: Text.encode,
  decode: Text.decode,
  keepFor: ({ config }) => (Rules.hasQuota(config.rules) ? keepQuotaMillis : keepMillis),

  readIn: ({ law: { answerMillis, inFlight } }, blocked) => Time.readIn(blocked, answerMillis, inFlight),
  flushIn: (state, id) =>
    Time.flushIn(Members.isContended(state, id), Math.min(state.config.concurrency, state.law.window.size) < Infinity),
  isUrgent: ({ law: { gate } }, now) => gate.misses > 0 || gate.until > now,
  // A process that joins takes its time from the state, so commits continue until a pause is over.
  mayRest: ({ law: { gate } }, now) => gate.until <= now,

  absorb: (state, _, now) => Members.absorb(state, now),
  configure: Members.configure,
  enter: Members.enter,
  retract: Members.retract,
  leave: ({ law }, member) => Members.leave(law, member),
  complete: Members.count,

  lost: () => {},
  takeOver: StoreLoss.takeOver,
  adopt: StoreLoss.adopt,
  shifted: (part, ahead) => ({ ...part, keptTo: part.keptTo + ahead }),

  partOf: Members.partOf,
  smaller: Members.smaller,
  isEmpty: ({ calls, of }) => of === 0 || calls === 0,
  leftOf: (part, { law }) => Members.leftOf(part, law),
  alone: (whole, id, part, now) => {
    const { inFlight = 0, ...member } = whole.members[id] ?? {}
    const own = { ...member, inFlight: 0, held: Amounts.nothing, spent: Amounts.nothing, part: undefined }
    return {
      ...whole,
      law: Members.partOfLaw(whole.law, part, inFlight, now),
      config: { ...whole.config, concurrency: part.calls },
      members: { [id]: own as State.PoolMember },
      degraded: { of: part.of, open: new Set() }
    }
  },
  ended: ({ law }, calls) => void (law.inFlight -= calls),
  comeBack: (state, id, began, { degraded, law, members }) => {
    Members.comeBack(state, id, { began: began.law, law, member: members[id]! })
    for (const admission of degraded!.open) Law.adopt(state.law, admission)
  }
}
