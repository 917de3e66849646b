// What a fault says of single inputs. Pure.

const POINTERS = /^\/inputs\/\S+(, \/inputs\/\S+)*: /; // with which a detail begins that tells of a template's inputs

/**
 * The complaints in a problem document: `{ pointer, detail }` as it lists them, and `{ place, input, detail }` where it
 * names nodes and their inputs: `NODE.INPUT`, and the template's input that fills it, if known. A detail is what is said
 * after the name of the input.
 */
export function complaintsOf({ problems, inputs, node_id, input_name, template_input, node_errors, detail = "" }) {
  const named = inputs ?? (input_name ? [{ node_id, input_name, template_input }] : []);
  const sentences = detail.replace(POINTERS, "").split(/(?<=\.) (?=Input )/);
  return [
    ...(problems ?? []),
    ...named.map((input) => complain(input.node_id, input, tell(sentences, input))),
    ...Object.entries(node_errors ?? {}).flatMap(([id, { errors }]) =>
      errors.map((error) => complain(id, error, explain(error))),
    ),
  ];
}

function complain(id, { input_name: name, template_input: input }, detail) {
  return { place: `${id}.${name}`, input, detail };
}

function tell(sentences, { node_id: id, input_name: name }) {
  const about = sentences.find((sentence) => sentence.includes(`Input ${name} of node ${id} `));
  return about?.replace(/^.*?Input .*? of node \S+ (\([^)]*\) )?/, "") ?? `can't be used: ${sentences.join(" ")}`;
}

function explain({ message, details }) {
  return `can't be used: ${details ? `${message} (${details})` : message}`;
}
