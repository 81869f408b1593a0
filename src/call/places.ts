/** Lets the calls of a governor have places. A client over one provider does not import it. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { PlaceMemory } from "../places/memory.ts"
import { StatedPlaces } from "../places/parse.ts"
import { PlaceReviews } from "../places/reviews.ts"
import { BudgetStore, newId } from "../sharing/port.ts"
import { openPlaces } from "./located.ts"
import type { GovernorParts } from "./parts.ts"
import { SharedPlaces } from "./place.ts"
import * as Placed from "./placed.ts"
import { admission, type AdmissionStep } from "./steps.ts"

/** The places of a governor's calls. */
export interface Placing {
  readonly shared: SharedPlaces
  readonly withAdmission: AdmissionStep
  /** Tells advice of the places that are known before the first call, because agents ask for it then. */
  readonly begin: (parts: GovernorParts) => void
}

/** Makes what calls with places share. If processes share a store, its memory learns from the others. */
export const make: Effect.Effect<Placing> = /* @__PURE__ */ Effect.gen(function* () {
  const context = yield* Effect.context<never>()
  const fork = Effect.runForkWith(context)
  const sharing = Context.get(context, BudgetStore)
  const id = sharing && (yield* newId)
  const clock = Context.get(context, Clock.Clock)
  const memory = new PlaceMemory(sharing && ((learner) => sharing.openAnswers({ id: id!, clock, fork, learner })))
  return {
    shared: new SharedPlaces(memory, new PlaceReviews(fork)),
    withAdmission: admission(Placed.admitted),
    begin: (parts) => {
      for (const [model, places] of Context.get(context, StatedPlaces)) {
        parts.history?.placed(model, openPlaces(parts, { model, places }))
      }
    }
  }
})
