/** Asks a running gateway for its status, and changes it with its admin token. */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Asking from "./asking.ts"
import * as Exit from "@floodgate/gateway/internal/exit"

const orStart = "start one with `floodgate gateway`, or name another with --gateway"

const decode = <A>(schema: Schema.Decoder<A>, body: unknown): Effect.Effect<A, Exit.CommandError> =>
  Effect.mapError(Schema.decodeUnknownEffect(schema)(body), () =>
    Exit.failure(
      "network",
      "The gateway answers differently than this command expects: use the same version of the gateway and of this command"
    )
  )

/** The state at a path of a gateway, as far as a schema describes it. */
export const read = Effect.fnUntraced(function* <A>(
  address: Asking.GatewayAddress,
  path: "status" | "tickets",
  schema: Schema.Decoder<A>
) {
  return yield* decode(schema, yield* Asking.exchange(address, HttpClientRequest.get(path), orStart))
})

const adminToken = Config.option(Config.Redacted("FLOODGATE_GATEWAY_ADMIN_TOKEN")).pipe(
  Effect.mapError(({ message }) => Exit.failure("usage", message)),
  Effect.flatMap(
    Option.match({
      onNone: () =>
        Effect.fail(
          Exit.failure(
            "usage",
            "Only operators change this: set FLOODGATE_GATEWAY_ADMIN_TOKEN to the gateway's admin token"
          )
        ),
      onSome: Effect.succeed
    })
  )
)

/** Changes what is at a path of the gateway, and returns what it is then. */
export const change = Effect.fnUntraced(function* <A>(
  address: Asking.GatewayAddress,
  path: "caps" | "jobs" | "tickets",
  body: object,
  schema: Schema.Decoder<A>
) {
  const request = HttpClientRequest.post(path).pipe(
    HttpClientRequest.setHeader("x-floodgate-admin", Redacted.value(yield* adminToken)),
    HttpClientRequest.bodyText(JSON.stringify(body), "application/json")
  )
  return yield* decode(schema, yield* Asking.exchange(address, request, orStart))
})
