/** Adds a key to the gateway, for operators. */
import type { GatewayStatus } from "../src/page/status.ts"
import { at } from "./elements.ts"

const form = at("adding") as HTMLFormElement
const field = (id: "holder" | "perDay" | "priority" | "expires" | "admin") => at(id) as HTMLInputElement

const off =
  "Off. With keys in its configuration and an admin token in FLOODGATE_GATEWAY_ADMIN_TOKEN, keys are added here. `floodgate gateway init` writes a gateway.json to begin with."

/** Shows the form where keys can be added. */
export const follow = ({ addsKeys }: GatewayStatus): void => {
  form.hidden = !addsKeys
  at("keysNote").hidden = addsKeys
  at("keysNote").textContent = addsKeys ? "" : off
}

/** What the operator asks for. A field that is empty is left out. */
const asked = (): object => {
  const figure = (id: "perDay" | "priority") => (field(id).value === "" ? undefined : Number(field(id).value))
  return {
    name: field("holder").value.trim(),
    dollarsPerDay: figure("perDay"),
    priority: figure("priority"),
    expires: field("expires").value || undefined
  }
}

const add = async (token: string | null): Promise<void> => {
  at("added").hidden = true
  at("keyError").textContent = ""
  const response = await fetch("keys", {
    method: "POST",
    cache: "no-store",
    // Like the token of the gateway, the admin token is in no address.
    headers: {
      "x-floodgate-admin": field("admin").value.trim(),
      ...(token === null ? {} : { "x-floodgate-token": token })
    },
    body: JSON.stringify(asked())
  })
  const { config, error, key } = JSON.parse(await response.text()) as Readonly<Record<string, unknown>>
  if (response.status !== 200) return void (at("keyError").textContent = String(error))
  at("newKey").textContent = String(key)
  at("newConfig").textContent = JSON.stringify(config, null, 2)
  at("added").hidden = false
  field("holder").value = ""
}

/** Adds a key whenever the form is sent. */
export const start = (token: () => string | null): void =>
  form.addEventListener("submit", (event) => {
    event.preventDefault()
    add(token()).catch(() => void (at("keyError").textContent = "The gateway does not answer. Try again."))
  })
