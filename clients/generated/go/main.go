// What a Go program makes of the client that openapi-generator writes. Argument: the server's URL.
package main

import (
	"context"
	"fmt"
	"os"

	memoryd "github.com/GIT_USER_ID/GIT_REPO_ID"
)

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func main() {
	configuration := memoryd.NewConfiguration()
	configuration.Servers = memoryd.ServerConfigurations{{URL: os.Args[1]}}
	client := memoryd.NewAPIClient(configuration)
	ctx := context.Background()
	namespace := []string{"go"}

	put := memoryd.NewPutItem(namespace, "food", map[string]interface{}{"text": "ramen"})
	put.SetIndex(false)
	_, err := client.StoreAPI.PutItem(ctx).PutItem(*put).Execute()
	check(err)
	put.SetIndex([]string{"text"})
	_, err = client.StoreAPI.PutItem(ctx).PutItem(*put).Execute()
	check(err)
	item, _, err := client.StoreAPI.GetItem(ctx).Namespace("go").Key("food").Execute()
	check(err)
	fmt.Println("get:", item.Value["text"])

	search := memoryd.NewSearchItems()
	search.SetNamespacePrefix(namespace)
	search.SetFilter(map[string]interface{}{"text": "ramen"})
	found, _, err := client.SearchAPI.SearchItems(ctx).SearchItems(*search).Execute()
	check(err)
	fmt.Println("search:", found.Items[0].Key)

	config := memoryd.NewManagerConfig()
	config.SetStrategy("verbatim")
	config.SetNamespace([]string{"go", "{user}"})
	_, _, err = client.ManagersAPI.PutManager(ctx, "go").ManagerConfig(*config).Execute()
	check(err)
	message := memoryd.NewConversationMessage()
	message.SetRole("user")
	message.SetContent("I love ramen.")
	extract := memoryd.NewExtractRequest([]memoryd.ConversationMessage{*message})
	extract.SetManager("go")
	extract.SetVariables(map[string]string{"user": "ann"})
	job, _, err := client.JobsAPI.ExtractMemories(ctx).Prefer("wait=20").ExtractRequest(*extract).Execute()
	check(err)
	fmt.Println("extract by name:", job.State, job.Result.Get().ExtractResult.Counts.Inserted)

	inline := memoryd.NewManagerConfig()
	inline.SetStrategy("verbatim")
	extract = memoryd.NewExtractRequest([]memoryd.ConversationMessage{*message})
	extract.SetManagerConfig(*inline)
	extract.SetNamespace([]string{"go", "bob"})
	job, _, err = client.JobsAPI.ExtractMemories(ctx).Prefer("wait=20").ExtractRequest(*extract).Execute()
	check(err)
	fmt.Println("extract inline:", job.State, job.Result.Get().ExtractResult.Counts.Inserted)

	batch := memoryd.NewBatch([]memoryd.BatchOperation{
		memoryd.GetOperationAsBatchOperation(memoryd.NewGetOperation(namespace, "food", "get")),
		memoryd.PutOperationAsBatchOperation(
			memoryd.NewPutOperation(namespace, "pet", map[string]interface{}{"n": 1}, "put")),
	})
	results, _, err := client.BatchAPI.RunBatch(ctx).Batch(*batch).Execute()
	check(err)
	read := results.Results[0].GetItem()
	fmt.Println("batch:", read.Key, results.Results[1].GetOp())

	put.SetNamespace([]string{})
	response, err := client.StoreAPI.PutItem(ctx).PutItem(*put).Execute()
	problem := err.(*memoryd.GenericOpenAPIError).Model().(memoryd.Problem)
	fmt.Println("problem:", response.StatusCode, problem.Errors[0].Field)
}
