/** Finds out whether a request lets the provider run tools of its own. Pure. */
import { isRecord, listOf } from "./json.ts"

/** The types of tools that the client runs. Anthropic's have a version: https://platform.claude.com/docs/en/agents-and-tools. */
const ofClients =
  /^(?:function|custom|namespace|local_shell|shell|apply_patch|computer|computer_use_preview|bash_\d+|text_editor_\d+|computer_\d+|memory_\d+)$/

const isOfClient = (tool: unknown): boolean => {
  if (!isRecord(tool)) return true
  const type = tool["type"]
  if (typeof type === "string") return ofClients.test(type)
  // Gemini names each kind of tool by a property. Anthropic's own tools need no type.
  return (
    Object.hasOwn(tool, "name") ||
    ["functionDeclarations", "function_declarations"].some((name) => Object.hasOwn(tool, name))
  )
}

/** Settings of a request that bring tools with them: a stored prompt, agent or assistant, a search, servers of tools. */
const others = ["prompt", "agent", "agent_id", "web_search_options", "mcp_servers", "connectors", "plugins"]

/**
 * Whether the provider may run tools for a request. Then it may run the model several times, and charges for each. A tool that is not
 * known to be the client's counts as the provider's.
 */
export const hasServerTools = (body: unknown): boolean => {
  if (!isRecord(body)) return false
  for (const name of others) if (body[name] != null) return true
  return !listOf(body["tools"]).every(isOfClient)
}
