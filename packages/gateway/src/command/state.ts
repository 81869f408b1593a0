/** Keeps the state of a gateway across restarts in the file of `--state`: learned limits and estimates, the spending of caps, and added keys. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import type * as Gateway from "../index.ts"
import * as Governor from "floodgate/Governor"
import { AddedKeys } from "../settings/newKeys.ts"
import * as Exit from "../terminal/exit.ts"
import * as Files from "../terminal/files.ts"
import * as Output from "../terminal/output.ts"
import * as Print from "../terminal/print.ts"
import { oneLine, unwrapped } from "../terminal/text.ts"

const flag = "--state"
/** A larger file would not be read, so none is written. */
const maxBytes = 64e6
/** The interval of saves: a crash loses at most this much. */
const saveEvery = "30 seconds"

const Amount = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

const Purse = Schema.Struct({
  total: Amount,
  cells: Schema.Array(Schema.Struct({ ends: Schema.NullOr(Schema.Finite), amount: Amount }))
})

const State = Schema.Struct({
  /** Incremented when the meaning of a field changes. */
  format: Schema.Literal(1),
  limits: Budget.Learned,
  calls: Estimator.Learned,
  spent: Schema.Record(Schema.String, Purse),
  // Earlier versions wrote none.
  added: Schema.optionalKey(AddedKeys)
})

const Json = Schema.fromJsonString(State)

/**
 * Reads the state of an earlier gateway; undefined if there is no file yet. An invalid file is not changed. An empty file is an error,
 * because none is ever written, and the spending of all caps would be forgotten.
 */
export const read = Effect.fnUntraced(function* (path: string) {
  const fs = yield* FileSystem.FileSystem
  const info = yield* Output.ownFile(path, flag)
  if (info === undefined) {
    yield* Output.claim(path, flag)
    return undefined
  }
  yield* Output.writing(path, flag)(fs.access(path, { readable: true, writable: true }))
  const text = yield* Files.text(path, maxBytes)
  if (text === "") {
    const help = "restore it, or remove it to start from zero"
    return yield* Exit.failure("file", `${oneLine(path)} is empty, so the spending of caps is unknown; ${help}`)
  }
  return yield* Effect.mapError(Schema.decodeUnknownEffect(Json)(text), ({ message }) => {
    const why = oneLine(unwrapped(message)).slice(0, 300)
    return Exit.failure(
      "file",
      `${oneLine(path)} is not the state of a gateway (${why}); move it away to start without it`
    )
  })
})

/** Saves the state of a gateway every half a minute, and when it has closed. */
export const around = <E, R>(path: string | undefined, make: Effect.Effect<Gateway.Gateway["Service"], E, R>) =>
  path === undefined
    ? make
    : Effect.gen(function* () {
        const budget = yield* Budget.TokenBudget
        const governor = yield* Governor.Governor
        const context = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
        const gateways: Array<Gateway.Gateway["Service"]> = []
        const save = Effect.gen(function* () {
          const [gateway] = gateways
          if (gateway === undefined) return
          const state = {
            format: 1 as const,
            limits: yield* budget.learned,
            calls: yield* governor.learned,
            spent: yield* gateway.spent,
            added: yield* gateway.added
          }
          const text = yield* Schema.encodeEffect(Json)(state)
          const bytes = Buffer.byteLength(text)
          if (bytes > maxBytes) {
            const why = `it would have ${Files.sizeText(bytes)}, and at most ${Files.sizeText(maxBytes)} are read`
            return yield* Print.err(`${oneLine(path)} was not replaced: ${why}`)
          }
          yield* Output.replaceOwn(path, text, flag, Output.ownerOnly)
        }).pipe(
          Effect.catch(({ message }) => Print.err(message)),
          Effect.provideContext(context),
          Effect.uninterruptible
        )
        // Registered before the gateway is made, so it runs after the gateway has closed.
        yield* Effect.addFinalizer(() => save)
        const gateway = yield* make
        gateways.push(gateway)
        yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(saveEvery), save)))
        return gateway
      })
