// Shows openapi.json with Swagger UI, and asks for an API key where the converter wants one.
//
// Invariant: the key goes to the converter that this page came from and into this tab's session storage, where the page
// at / looks for it, too; and nowhere else.

const NAME = "converter.key";
const form = document.getElementById("ask");
const input = document.getElementById("key");
const problem = document.getElementById("problem");

async function show(key) {
  const response = await fetch("openapi.json", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  form.hidden = response.status !== 401;
  if (response.status === 401) {
    sessionStorage.removeItem(NAME);
    problem.textContent = key ? "This key is not valid." : "";
    input.focus();
    return;
  }
  if (!response.ok) throw new Error(`openapi.json: ${response.status} ${response.statusText}`);
  const spec = await response.json();
  problem.textContent = "";
  if (key) sessionStorage.setItem(NAME, key);
  const viewer = SwaggerUIBundle({
    spec,
    dom_id: "#viewer",
    deepLinking: true,
    validatorUrl: null, // it is somebody else's service
    onComplete: () => key && viewer.preauthorizeApiKey("key", key),
  });
}

function attempt(key) {
  show(key).catch((error) => {
    problem.textContent = `The API can't be shown: ${error.message}`;
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(input.value.trim());
});

document.documentElement.classList.toggle("dark-mode", matchMedia("(prefers-color-scheme: dark)").matches);
attempt(sessionStorage.getItem(NAME) ?? "");
