// What a fault says of single inputs. Pure.

/**
 * The complaints in a problem document: `{ pointer, detail }` as it lists them, and `{ place, detail }` where it names
 * nodes and their inputs: `NODE.INPUT`. A detail is what is said after the name of the input.
 */
export function complaintsOf({ problems, inputs, node_id, input_name, node_errors, detail = "" }) {
  const named = inputs ?? (input_name ? [{ node_id, input_name }] : []);
  const sentences = detail.split(/(?<=\.) (?=Input )/);
  return [
    ...(problems ?? []),
    ...named.map((input) => ({ place: `${input.node_id}.${input.input_name}`, detail: tell(sentences, input) })),
    ...Object.entries(node_errors ?? {}).flatMap(([id, { errors }]) =>
      errors.map((error) => ({ place: `${id}.${error.input_name}`, detail: explain(error) })),
    ),
  ];
}

function tell(sentences, { node_id: id, input_name: name }) {
  const about = sentences.find((sentence) => sentence.includes(`Input ${name} of node ${id} `));
  return about?.replace(/^.*?Input .*? of node \S+ (\([^)]*\) )?/, "") ?? `can't be used: ${sentences.join(" ")}`;
}

function explain({ message, details }) {
  return `can't be used: ${details ? `${message} (${details})` : message}`;
}
